"""What `kdlab.data.check` found, as files for people: pictures, a page of text, JSON."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from kdlab.cache import write_atomic
from kdlab.data.check import check
from kdlab.data.opening import Opened, open_set, picture_of
from kdlab.data.unpickle import shown
from kdlab.plots.faces import contact_sheet, pair_grid
from kdlab.plots.png import png

TILE = 96  # pixels of a picture on the sheets; ours
PAIRS = 12  # pairs drawn; the report names more
LISTED = 20  # names in the page of text; the JSON has up to 50, of faults 1000


def sheet(one: Opened, rows: list[list[int]]) -> go.Figure:
    """Some of the set's people, one a row."""
    columns = max(map(len, rows))
    tiles = np.full((len(rows) * columns, 3, TILE, TILE), 255, np.uint8)
    for r, person in enumerate(rows):
        for c, row in enumerate(person):
            tiles[r * columns + c] = _tile(one, row)
    labels = None
    if one.faces.labels is not None:
        labels = [_called(one.faces, int(one.faces.labels[person[0]])) for person in rows]
    return contact_sheet(tiles, columns, labels, title="Some of the set",
                         subtitle=None if labels is None else "a row shows one identity")


def _called(faces, label: int) -> str:
    """The name of an identity, cut to 20 characters, or its label."""
    name = shown(faces.identities[label]) if hasattr(faces, "identities") else f"label {label}"
    return name if len(name) <= 20 else f"{name[:19]}\N{HORIZONTAL ELLIPSIS}"


def pairs(left: Opened, right: Opened, rows: list[list[int]], scores, title: str) -> go.Figure:
    """Pictures that are there twice, side by side.   scores: 1 for equal ones."""
    a, b = (np.stack([_tile(one, pair[k]) for pair in rows[:PAIRS]])
            for k, one in enumerate((left, right)))
    return pair_grid(a, b, np.asarray(scores[:PAIRS], float),
                     [f"rows {i} and {j}" for i, j in rows[:PAIRS]], title=title)


def write(report: dict, folder: str | Path, one: Opened, other: Opened | None = None) -> list[Path]:
    """report.json, report.md, sheet.png and, where there is something to see, copies.png and
    leaks.png in `folder`; their paths."""
    folder, figures = Path(folder), {}
    if report["sheet"]:
        figures["sheet"] = sheet(one, report["sheet"]), "Pictures drawn from the set, by identity"
    near = report["copies"]["near"]
    exact = [group[:2] for group in report["copies"]["exact"]["rows"]]
    some = exact[:PAIRS // 2] + near["rows"] if near["rows"] else exact
    if some:
        bits = [0] * (len(some) - len(near["rows"])) + near["bits"]
        figures["copies"] = pairs(one, one, some, _likeness(bits), "Twice in the set"), (
            "Pairs of pictures that are equal or nearly so, with their rows")
    if other is not None and report.get("leaks", {}).get("rows"):
        found = report["leaks"]
        figures["leaks"] = pairs(one, other, found["rows"], _likeness(found["bits"]),
                                 "In the set and in the benchmark"), (
            "Pairs of a picture of the set and one of the benchmark, equal or nearly so")
    for name, (fig, alt) in figures.items():
        write_atomic(folder / f"{name}.png", png(fig, alt))
    write_atomic(folder / "report.json", json.dumps(report, indent=1))
    write_atomic(folder / "report.md", words(report))
    return [folder / f"{name}.png" for name in figures] + [folder / "report.json",
                                                           folder / "report.md"]


def words(report: dict) -> str:
    """The report as a page of Markdown."""
    lines = [f"# {report['set']['path']}", ""]
    if not report["finished"]:
        told = " and ".join(f"{report[key]['looked_at']:,} of {report[key]['images']:,} pictures "
                            f"of the {key}" for key in ("set", "benchmark") if key in report)
        lines += [f"**Stopped: {told} were looked at; what follows is about these.**", ""]
    for key in ("set", "benchmark"):
        if key in report:
            lines += _counts(report[key], key)
    lines += _copies(report["copies"])
    if "leaks" in report:
        found = report["leaks"]
        lines += ["## Leaks", "", f"Of {found['of']:,} pictures of the benchmark {found['exact']:,}"
                  f" are in the set with equal pixels, {found['near']:,} more nearly so"
                  f"{_cut(found)}.", ""] + _named(found["names"], found["bits"])
    if "probe" in report:
        lines += _probe(report["probe"])
    if "people" in report:
        lines += _people(report["people"])
    return "\n".join([*lines, f"{report['seconds']} s.", ""])


def _counts(found: dict, key: str) -> list[str]:
    lines = [f"## The {key}" + (f": {found['path']}" if key == "benchmark" else ""), ""]
    lines.append(f"- {found['kind']}: {found['images']:,} pictures, {found['read']:,} read")
    if "identities" in found:
        least, median, most = found["images_per_identity"]
        lines.append(f"- {found['identities']:,} identities, {found['singletons']:,} with one "
                     f"picture; {least} to {most:,} pictures each, median {median:g}")
    if "pairs" in found:
        lines.append(f"- {found['pairs']:,} pairs, {found['genuine']:,} of one person")
    if found["sizes"]:
        sizes = ", ".join(f"{w} x {h} ({count:,})" for w, h, count in found["sizes"][:5])
        more = found["kinds_of_size"] - 5
        lines.append(f"- sizes: {sizes}" + (f" and {more} more" if more > 0 else ""))
        lines.append(f"- red, green, blue of 255: mean {_three(found['mean'])}, standard deviation "
                     f"{_three(found['std'])}; {found['grey']:,} pictures are grey")
    lines.append(f"- {found['unreadable']:,} pictures cannot be read, {found['passed_over']:,} "
                 "faults were passed over when the set was opened")
    return lines + [f"    - {line}" for line in found["faults"][:LISTED]] + [""]


def _three(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _copies(found: dict) -> list[str]:
    exact, near = found["exact"], found["near"]
    lines = ["## Twice", "",
             f"- equal pixels: {exact['extra']:,} pictures are copies of an earlier one "
             f"(in {exact['groups']:,} groups, {exact['two_identities']:,} of them with two "
             "identities or more)"]
    lines += [f"    - {', '.join(group)}" for group in exact["names"][:LISTED]]
    lines.append(f"- nearly equal: {near['pairs']:,} pairs, {near['two_identities']:,} of two "
                 f"identities{_cut(near)}")
    return lines + _named(near["names"], near["bits"])


def _named(names: list, bits: list) -> list[str]:
    return [f"    - {a}, {b} ({bit} of 288 bits differ)"
            for (a, b), bit in zip(names[:LISTED], bits, strict=False)] + [""]


def _cut(found: dict) -> str:
    return "; too many are alike, not all pairs were counted" if found["cut"] else ""


def _probe(found: dict) -> list[str]:
    lines = ["## How the pictures are stored, by the dlib teacher", "",
             f"{found['pictures']} pictures of {found['units']} {found['of']}: {found['genuine']:,}"
             f" genuine and {found['impostor']:,} impostor pairs.", ""]
    for what in ("channels", "alignment"):
        told = found[what]
        why = told.get("why") or (
            "{} less {}: {:+.2f} ({:+.2f} to {:+.2f})".format(
                *told["compared"], told["difference"], told["low"], told["high"]))
        lines.append(f"- {what}: **{told['verdict']}** ({why})")
    if found["hypotheses"]:
        lines += ["", "| taken as | equal error rate | gap (95 %) |", "|---|---|---|"]
        lines += ["| {alignment} {channels} | {eer:.1%} | {gap:.2f} ({low:.2f} to {high:.2f}) |"
                  .format(**row) for row in found["hypotheses"]]
        lines += ["", "Gap: mean cosine of one person's pictures less that of different people, in "
                  "standard deviations of the latter. The verdict compares the two hypotheses "
                  "person by person; \"cannot tell\" where the interval holds zero. It is about "
                  "the set as a whole, not about single pictures, and a crop that is neither of "
                  "the two shows only by high error rates."]
    return [*lines, ""]


def _people(found: dict) -> list[str]:
    lines = ["## One person, by the dlib teacher", "",
             f"Cosine {found['threshold']} or more, among {found['embedded'][0]:,} pictures"
             + (f" and {found['embedded'][1]:,} of the benchmark" if len(found["embedded"]) > 1
                else "") + ". Look at them: among many pairs some are different people.", ""]
    for key, what in (("two_identities", "under two identities"), ("leaks", "in both sets")):
        if key in found:
            lines.append(f"- {found[key]['pairs']:,} pairs {what}")
            lines += [f"    - {a}, {b} (cosine {score})" for (a, b), score in
                      zip(found[key]["names"][:LISTED], found[key]["cosines"], strict=False)]
    return [*lines, ""]


def _tile(one: Opened, row: int) -> np.ndarray:
    """(3, TILE, TILE) uint8."""
    picture = Image.fromarray(np.ascontiguousarray(picture_of(one, row)))
    resized = picture.resize((TILE, TILE), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def _likeness(bits: list[int]) -> np.ndarray:
    """Cosine of what two fingerprints stand for, from the bits that differ (Charikar 2002)."""
    return np.cos(np.pi * np.asarray(bits) / 288)


def run(args) -> int:
    """`kdlab data check`."""
    one = open_set(args.path)
    other = open_set(args.benchmark) if args.benchmark else None
    report = check(one, other, teacher=not args.no_teacher, sample=args.sample, embed=args.embed,
                   seed=args.seed)
    paths = write(report, args.out, one, other)
    print(words(report))
    print("\n".join(map(str, paths)))
    if not report["finished"]:
        return 130
    return int(any(report[key]["unreadable"] + report[key]["passed_over"] > 0
                   for key in ("set", "benchmark") if key in report))
