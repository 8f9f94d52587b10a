"""Explorers: a figure in which a point, a pair or a class centre shows the faces it stands for."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from IPython.display import display

from kdlab.plots import contact_sheet, multiples, show
from kdlab.plots.maps import centre_frame, centre_map, embedding_map
from kdlab.plots.multiples import single
from kdlab.plots.relations import pair_kinds, pair_sheet, pair_view, pair_words, relation_map
from kdlab.progress import headless
from kdlab.ui.controls import choice, slider
from kdlab.ui.live import ACROSS, Card, Explorer, moved, places
from kdlab.ui.panel import panel


def explorer(
    fig: go.Figure,
    cards: Sequence[Card] | Mapping[int, Card],
    faces: np.ndarray,
    *,
    alt: str,
    name: str | None = None,
    item: str = "item",
    frames: Mapping[str, Mapping[str, tuple]] | None = None,
    static_cards: Sequence[int] | Mapping[str, int] | None = None,
    sheet: Callable[[dict[str, int]], go.Figure] | None = None,
) -> None:
    """Show `fig` and a few cards, then, with a front end, the same figure to hover over.

    fig: scatter traces whose `customdata` are card numbers, one for each point; points of one
    number, in whichever subplot, are ringed together.   cards: number -> (words, rows into faces):
    one row for a picture, two for a pair, several for a class. The words before the first colon are
    the card's short name. Their order is that of the slider, which reaches all of them by keyboard.
    faces: (M, 3, S, S) uint8.   alt, name: see `plots.show`.   item: what a card is.   frames: name
    of a moment -> {trace name: (x, y)}, which a player runs through; printed are the first, the
    middle and the last.   static_cards: the cards to print, or heading -> card; None: eight of
    them, or three rows.   sheet: draws heading -> card; None: `card_sheet`.
    Raises ValueError for a point without a card, rows that `faces` does not have, and frames that
    do not fit the figure.
    """
    cards = dict(cards) if isinstance(cards, Mapping) else dict(enumerate(cards))
    _check(fig, cards, faces)
    if frames:
        steps = list(frames)
        three = dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]])
        still = {step: moved(go.Figure(fig), frames[step]) for step in three}
        whole = multiples(still) if all(map(single, still.values())) else still[steps[-1]]
        show(whole, f"{alt} Shown at {', '.join(three)}.", name)
    else:
        show(fig, alt, name)
    chosen = _headed(cards, static_cards)
    printed = sheet(chosen) if sheet else card_sheet(cards, faces, chosen)
    show(printed, _sheet_words(cards, chosen), name and f"{name}-faces")
    if not headless():
        display(Explorer(fig, cards, faces, item=item, frames=frames).box)


def card_sheet(cards: Mapping[int, Card], faces: np.ndarray,
               chosen: Mapping[str, int]) -> go.Figure:
    """The cards `chosen` (heading -> number) in print: single faces in a row, others row by row."""
    rows = [list(cards[number][1])[:ACROSS] for number in chosen.values()]
    title = "Some of the faces behind the points"
    if all(len(own) == 1 for own in rows):
        return contact_sheet(faces[[own[0] for own in rows]], len(rows), titles=list(chosen),
                             title=title, gap=8)  # fmt: skip
    columns = max(map(len, rows))
    sheet = np.full((len(rows), columns, *faces.shape[1:]), 255, np.uint8)
    for line, own in zip(sheet, rows, strict=True):
        line[: len(own)] = faces[own]
    return contact_sheet(sheet.reshape(-1, *faces.shape[1:]), columns, row_labels=list(chosen),
                         title=title)  # fmt: skip


def _headed(cards: Mapping[int, Card], chosen) -> dict[str, int]:
    if chosen is None:
        most = ACROSS if all(len(rows) == 1 for _, rows in cards.values()) else 3
        chosen = list(cards)[:: -(-len(cards) // most)]
    if isinstance(chosen, Mapping):
        return dict(chosen)
    return {cards[number][0].partition(":")[0]: number for number in chosen}


def _sheet_words(cards: Mapping[int, Card], chosen: Mapping[str, int]) -> str:
    told = [cards[number][0] if cards[number][0].startswith(heading) else
            f"{heading}: {cards[number][0]}" for heading, number in chosen.items()]
    return f"Faces behind some of the points. {'. '.join(told)}."


def _check(fig: go.Figure, cards: Mapping[int, Card], faces: np.ndarray) -> None:
    if not cards:
        raise ValueError("explorer got no cards; give words and rows of faces for each point")
    if missing := sorted(places(fig).keys() - cards.keys()):
        raise ValueError(f"{len(missing)} points have no card, the first is number {missing[0]}; "
                         "`customdata` of a trace are card numbers")  # fmt: skip
    for number, (words, rows) in cards.items():
        if not len(rows) or not all(0 <= row < len(faces) for row in rows):
            raise ValueError(f"card {number} ({words}) asks for rows {list(rows)} of "
                             f"{len(faces)} faces")  # fmt: skip


def relation_explorer(pairs: np.ndarray, faces: np.ndarray, *, alt: str, name: str = "relations",
                      limit: int | None = None, **relations) -> None:
    """The relation map; a point shows its two faces, both similarities, the thresholds passed.

    pairs: (N, 2) row numbers into faces (M, 3, S, S) uint8.   relations: the arguments of
    `plots.relation_map` by name: teacher, student, genuine, critical, both thresholds, fprs.
    The slider runs from the pairs the student sees as least similar to the most similar.
    """
    fig = relation_map(**relations, **({} if limit is None else {"limit": limit}))
    student = relations["student"]
    drawn = sorted(places(fig), key=lambda number: student[number])
    cards = {number: (pair_words(number, **relations), tuple(pairs[number])) for number in drawn}
    chosen = {}
    for kind, numbers in _kinds(relations, drawn).items():
        fresh = [int(number) for number in numbers if number not in chosen.values()]
        chosen |= {kind: fresh[0]} if fresh else {}
    explorer(fig, cards, faces, alt=alt, name=name, item="pair", static_cards=chosen,
             sheet=lambda chosen: pair_sheet(chosen, pairs, faces, **relations))


def _kinds(relations: Mapping, among: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """`pair_kinds`, of all pairs or of those in `among`."""
    named = {key: np.asarray(relations[key]) for key in ("student", "genuine", "critical")}
    if among is None:
        return pair_kinds(**named)
    among = np.asarray(among)
    found = pair_kinds(**{key: values[among] for key, values in named.items()})
    return {kind: among[rows] for kind, rows in found.items()}


def pair_viewer(pairs: np.ndarray, faces: np.ndarray, *, most: int = 50, name: str = "pairs",
                **relations) -> None:
    """The worst pairs of each kind, one at a time: two faces, similarities, thresholds passed.

    A choice of kind (`plots.pair_kinds`) and a slider; printed is the first pair of every kind.
    most: pairs of a kind.   For the rest see `relation_explorer`.
    """
    kinds = {kind: numbers[:most] for kind, numbers in _kinds(relations).items()}
    knobs = {"kind": choice(list(kinds), next(iter(kinds)), "kind of pair"),
             "rank": slider(0, max(map(len, kinds.values())) - 1, 1, 0, "", "number")}

    def view(kind: str, rank: int) -> go.Figure:
        return pair_view(kind, rank, kinds, pairs, faces, **relations)

    def words(kind: str, rank: int) -> str:
        number = int(kinds[kind][min(rank, len(kinds[kind]) - 1)])
        return f"Two faces; {kind}; {pair_words(number, **relations)}."

    static = {kind: {"kind": kind} for kind in list(kinds)[1:]}
    panel(view, knobs, alt=words, static=static, name=name)


def embedding_explorer(maps: Mapping[str, np.ndarray], labels: np.ndarray, faces: np.ndarray, *,
                       alt: str, name: str = "embedding", **options) -> None:
    """The same pictures in each network's map; a point shows its face and its place in the others.

    maps, labels, options: see `plots.embedding_map`.   faces: (N, 3, S, S) uint8, one a picture.
    """
    fig = embedding_map(maps, labels, **options)
    cards = {number: (f"picture {number}: person {labels[number]}", (number,))
             for number in sorted(places(fig))}
    explorer(fig, cards, faces, alt=alt, name=name, item="picture")


def centre_player(positions: np.ndarray, steps: Sequence[str], rows: Sequence[Sequence[int]],
                  faces: np.ndarray, *, alt: str, name: str = "centres", **options) -> None:
    """Class centres that move while a network learns; a centre shows faces of its class.

    positions: (T, C, 2).   steps: T names of the moments, such as "step 200".   rows: for each of
    the C classes, rows of its pictures in faces (M, 3, S, S) uint8; the first ACROSS are shown.
    options: see `plots.centre_map`.   Raises ValueError when these numbers disagree.
    """
    positions = np.asarray(positions)
    if positions.shape[:2] != (len(steps), len(rows)) or len(set(steps)) < len(steps):
        raise ValueError(f"positions {positions.shape} need {positions.shape[0]} different steps "
                         f"and rows for {positions.shape[1]} classes, got {len(steps)} and "
                         f"{len(rows)}")  # fmt: skip
    fig = centre_map(positions, **options)
    frames = {step: centre_frame(fig, centres)
              for step, centres in zip(steps, positions, strict=True)}
    cards = [(f"class {c}: {min(len(own), ACROSS)} of its pictures", tuple(own[:ACROSS]))
             for c, own in enumerate(rows)]
    explorer(fig, cards, faces, alt=alt, name=name, item="class", frames=frames)
