"""The papers' benchmarks in miniature: persons no network was trained on, faces known in all.

Each stands for a real set by what makes that set hard, not by its size. Identity numbers are
divided by purpose, so that no person serves two: networks train on TRAINING, settings are chosen on
VALIDATION, a study's own test is in TEST, and every protocol has 1,000 numbers from 30,000 on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from kdlab.cache import digest
from kdlab.data.faces import FaceSet
from kdlab.evaluate.pairs import supported_fprs
from kdlab.world.faces import FaceWorld
from kdlab.world.identity import GROUPS
from kdlab.world.rendered import rendered

TRAINING, VALIDATION, TEST = range(10_000), range(10_000, 20_000), range(20_000, 30_000)
SHARE = 1000  # identity numbers of each protocol

# stands_for; first identity number; identities; pictures of a person on each side; nuisance of
# side a; nuisance of side b (None: one side, pairs within it); ages of the population in years.
# Optional: templates (pictures in each of a person's templates, the gallery's first), distractors
# (strangers with one picture, for each person), groups (as many persons of each ancestry, pairs
# within one). Sizes are ours: enough impostor pairs for an FPR of 1e-4 (groups: 1e-3).
PROTOCOLS: dict[str, dict] = {
    "frontal": {
        "stands_for": "LFW: faces turned to the camera, everyday light",
        "first": 30_000, "identities": 150, "pictures": 4, "ages": (18, 75),
        "a": {"yaw_sd": 10.0, "pitch_sd": 6.0}, "b": None},
    "profile": {
        "stands_for": "CFP-FP: frontal pictures against profiles",
        "first": 31_000, "identities": 150, "pictures": 4, "ages": (18, 75),
        "a": {"yaw_sd": 4.0, "pitch_sd": 6.0, "profile": 0.0}, "b": {"profile": 1.0}},
    "age": {  # pictures at 18 to 75 years, 30 apart as in AgeDB-30
        "stands_for": "AgeDB-30 and CALFW: 30 years between two pictures",
        "first": 32_000, "identities": 150, "pictures": 4, "ages": (33, 60),
        "a": {"age_gap": 30.0}, "b": {"age_gap": 30.0}},
    "pose": {  # normal draws end at 2.5 sd: 80 degrees at most
        "stands_for": "CPLFW: any pose against any other",
        "first": 33_000, "identities": 150, "pictures": 4, "ages": (18, 75),
        "a": {"yaw_sd": 32.0, "pitch_sd": 12.0}, "b": None},
    "masked": {
        "stands_for": "MFR, Mask: plain pictures against masked ones (its metric: FPR 1e-4)",
        "first": 34_000, "identities": 150, "pictures": 4, "ages": (18, 75),
        "a": {"mask": 0.0}, "b": {"mask": 1.0}},
    "children": {
        "stands_for": "MFR, Children: all against all (its metric: FPR 1e-4)",
        "first": 35_000, "identities": 150, "pictures": 4, "ages": (4, 15), "a": {}, "b": None},
    "groups": {
        "stands_for": "RFW: each ancestry by itself, as many persons of each",
        "first": 36_000, "identities": 150, "pictures": 6, "ages": (18, 75),
        "a": {}, "b": None, "groups": True},
    "templates": {
        "stands_for": "IJB-B and IJB-C: templates of many pictures, good and bad",
        "first": 37_000, "identities": 120, "pictures": 12, "ages": (18, 75),
        "a": {"yaw_sd": 28.0, "blur": 1.6, "noise": 1.5, "jpeg": 0.5}, "b": None,
        "templates": (6, 3, 2, 1)},
    "distractors": {
        "stands_for": "MegaFace: one mate among strangers",
        "first": 38_000, "identities": 100, "pictures": 5, "ages": (18, 75),
        "a": {}, "b": None, "distractors": 9},
    "standard": {
        "stands_for": "no other set: new persons under the nuisance of training",
        "first": 39_000, "identities": 100, "pictures": 10, "ages": (18, 75), "a": {}, "b": None},
}


@dataclass(frozen=True, eq=False)
class Protocol:
    """Faces, and which of them meet.

    a, b: (Na,), (Nb,) rows of the faces; where b is a, every unordered pair within is meant, else
    every picture of a against every one of b.   template: (N,) template of each row, or None.
    distractor: rows of strangers, or None.   group: (N,) ancestry of each row, or None; pairs only
    within a group.
    """

    name: str
    faces: FaceSet
    a: np.ndarray
    b: np.ndarray
    template: np.ndarray | None = None
    distractor: np.ndarray | None = None
    group: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray | None]:
        """labels, a, b, template, distractor, group: `judge(embeddings, **protocol.arrays())`."""
        rows = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {"labels": self.faces.labels, **rows}


class _TwoSides(FaceWorld):
    """One population; even pictures under nuisance a, odd ones under b.

    No number is on both sides: two pictures of one number would share light, background and
    expression, and a genuine pair of them would be too easy.
    """

    def __init__(self, seed: int, a: dict, b: dict, **world):
        super().__init__(seed, **world, **a)
        self.odd = FaceWorld(seed, **world, **b)

    @property
    def key(self) -> str:
        return digest([super().key, self.odd.key])

    def image(self, i: int, j: int) -> dict:
        return self.odd.image(i, j) if j % 2 else super().image(i, j)


def protocol(name: str, seed: int = 0, crops: Sequence[str] = ("arcface", "dlib"),
             identities: int | None = None) -> Protocol:
    """A protocol's faces, from the cache or rendered now, and its rows.

    seed: the world's; networks trained in another world are strangers to it too.   identities:
    another number of persons than PROTOCOLS says, 2 at least (groups: 2 of each); the first ones
    stay the same, except where groups are balanced.   Labels 0, 1, ... in order of identity
    number, distractors after the rest.   Raises ValueError in words.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    plan = PROTOCOLS[name]
    count = plan["identities"] if identities is None else identities
    strangers = plan.get("distractors", 0)  # for each person
    least, most = 2 * len(GROUPS) if plan.get("groups") else 2, SHARE // (1 + strangers)
    if not least <= count <= most:
        raise ValueError(f"the protocol {name!r} takes {least} to {most} identities (an impostor "
                         f"pair needs two persons, a number serves one protocol), not {count}")
    ages = {} if plan["ages"] == (18, 75) else {"ages": plan["ages"]}  # else the world's own
    if plan["b"] is None:
        world, each = FaceWorld(seed, **ages, **plan["a"]), plan["pictures"]
    else:
        world, each = _TwoSides(seed, plan["a"], plan["b"], **ages), 2 * plan["pictures"]
    first = plan["first"]
    who = _balanced(world, first, count) if plan.get("groups") else range(first, first + count)
    faces = rendered(world, who, each, crops)
    rows = np.arange(len(faces))
    a, b = (rows, rows) if plan["b"] is None else (rows[::2], rows[1::2])  # `each` is even
    template = distractor = None
    if "templates" in plan:
        sizes = plan["templates"]
        template = np.repeat(np.arange(count * len(sizes)), np.tile(sizes, count))
    if strangers:
        others = rendered(world, range(first + count, first + count * (1 + strangers)), 1, crops)
        faces, distractor = _joined(faces, others), len(faces) + np.arange(len(others))
    group = faces.factors["group"] if plan.get("groups") else None
    return Protocol(name, faces, a, b, template, distractor, group)


def counts(p: Protocol) -> dict:
    """Numbers of pairs, without looking at a picture: {"genuine", "impostor", "fprs"}.

    fprs: those of 1e-1 .. 1e-6 at which 10 impostor pairs or more are expected above the
    threshold.   A protocol of groups adds "groups": ancestry -> the same of its pairs alone, and
    its own numbers are their sums. With distractors, impostor pairs are picture x distractor.
    """
    labels, a, b = p.faces.labels, p.a, p.b
    if p.group is not None:
        parts = {int(g): _counted(*_pairs(labels, a[p.group[a] == g], b[p.group[b] == g]))
                 for g in np.unique(p.group[np.union1d(a, b)])}
        genuine, impostor = (sum(part[kind] for part in parts.values())
                             for kind in ("genuine", "impostor"))
        return _counted(genuine, impostor) | {"groups": parts}
    if p.template is not None:
        templates, row = np.unique(p.template, return_index=True)
        labels = labels[row]
        a, b = (np.searchsorted(templates, np.unique(p.template[side])) for side in (a, b))
    genuine, impostor = _pairs(labels, a, b)
    if p.distractor is not None:
        impostor = len(np.union1d(a, b)) * len(p.distractor)
    return _counted(genuine, impostor)


def _counted(genuine: int, impostor: int) -> dict:
    return {"genuine": genuine, "impostor": impostor, "fprs": supported_fprs(impostor)}


def _pairs(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Genuine and impostor pairs of a and b: no row with itself, each unordered pair once.

    Of n_a n_b ordered pairs, o rows on both sides make o self-pairs and o (o - 1) / 2 repeats.
    """
    def unordered(n_a, n_b, o):
        return n_a * n_b - o - o * (o - 1) // 2

    people = labels.max(initial=-1) + 1
    sizes = [np.bincount(labels[rows], minlength=people) for rows in (a, b, np.intersect1d(a, b))]
    genuine = int(unordered(*sizes).sum())
    return genuine, int(unordered(*(size.sum() for size in sizes))) - genuine


def _balanced(world: FaceWorld, first: int, count: int) -> list[int]:
    """The first persons of each ancestry, `count` in all, numbers per ancestry equal within 1."""
    wanted = [len(part) for part in np.array_split(np.arange(count), len(GROUPS))]
    chosen = []
    for i in range(first, first + SHARE):
        group = world.identity(i)["group"]
        if wanted[group]:
            wanted[group] -= 1
            chosen.append(i)
        if not any(wanted):
            return chosen
    raise ValueError(f"{SHARE} identities hold too few of one ancestry for {count} in balance; "
                     "ask for fewer")


def _joined(one: FaceSet, other: FaceSet) -> FaceSet:
    """Both sets in memory, the other's labels after the one's."""
    return FaceSet({name: np.concatenate([one.crops[name], other.crops[name]])
                    for name in one.crops},
                   np.concatenate([one.labels, one.labels.max() + 1 + other.labels]),
                   digest([one.key, other.key]),
                   {name: np.concatenate([one.factors[name], other.factors[name]])
                    for name in one.factors})
