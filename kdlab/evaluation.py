"""A model judged on sets of faces: one table, one JSON, and the figures. `kdlab evaluate`.

A model is whatever makes embeddings: a run's student, a teacher's file, an ONNX file with its
contract. A set is "orl", a rendered protocol (kdlab.world.protocols), a folder with a sub-folder a
person, a .rec, or a .bin of pairs. Embeddings are picture plus mirror, added raw, and are cached
(kdlab.data.embeddings): judging a model again costs seconds.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.cache import write_atomic
from kdlab.data.embeddings import embed_set
from kdlab.evaluate.all_pairs import all_versus_all, curve
from kdlab.evaluate.identification import judge
from kdlab.evaluate.meetings import Pairs, meeting, pairs_of, worst_of
from kdlab.evaluate.pairs import EXPECTED, FPRS, supported_fprs, unit_rows
from kdlab.evaluate.tenfold import ten_fold
from kdlab.evaluate.verification import eer, roc, tpr_at_fpr
from kdlab.evaluation_report import draw, words
from kdlab.teachers import Teacher
from kdlab.train.taught import run_teacher
from kdlab.world.protocols import PROTOCOLS, Protocol, protocol

__all__ = ["evaluate_model", "words"]
LARGE = 3000  # pictures; of more, pairs are judged block by block and drawn from a sample; ours
WORST = 4  # pairs of each kind on the sheet: a row


class Set(NamedTuple):
    """Faces to judge on.   kind: "orl", "protocol", "folder", "recordio" or "bin".   labels: (N,),
    None for a .bin.   arrays: of a protocol (`judge`'s).   is_same: (P,) of a .bin."""

    name: str
    kind: str
    faces: object
    labels: np.ndarray | None
    arrays: dict | None = None
    is_same: np.ndarray | None = None


def evaluate_model(model: str | Path | Teacher, sets: Sequence[str], out: str | Path | None = None,
                   *, crop: str = "arcface", people: int | None = None) -> dict:
    """Judge a model on sets; with `out`, a folder, also write evaluation.json and figures there.

    model: a path (the folder of a run stands for its student.safetensors), a name in data/teachers,
    or a Teacher.   sets: "orl", a protocol's name, or a path.   crop: how the pictures of a folder,
    a .rec or a .bin are aligned.   people: of a protocol, instead of its own number.

    Returns {"model", "sha256", "contract", "sets": {name: result}, "figures": [paths]}; a result
    has pictures, genuine, impostor (numbers of pairs), eer and "tpr", one entry for each FPR with
    an exact 95 % interval, or None and the impostor pairs that are missing; where there is one,
    rank1, groups and accuracy. Raises FileNotFoundError, or ValueError in one line.
    """
    teacher = model if isinstance(model, Teacher) else _model(Path(model))
    if not sets:
        raise ValueError(f"name a set to judge on: orl, {', '.join(PROTOCOLS)}, a folder, a .rec "
                         "or a .bin")
    opened = [_open(name, teacher.contract, crop, people) for name in dict.fromkeys(map(str, sets))]
    report = {"model": str(model) if not isinstance(model, Teacher) else teacher.hash,
              "sha256": teacher.hash, "contract": teacher.contract, "sets": {}, "figures": []}
    drawn = {}
    for one in opened:
        try:
            report["sets"][one.name], drawn[one.name] = _judged(teacher, one)
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from error
    if out is not None:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        report["figures"] = draw(out, drawn)
        write_atomic(out / "evaluation.json", json.dumps(report, indent=2) + "\n")
    return report


def _model(path: Path) -> Teacher:
    if path.is_dir():
        path = path / "student.safetensors"
    try:
        return run_teacher(str(path))
    except (FileNotFoundError, ValueError) as error:  # that function speaks of a run's `teacher:`
        raise type(error)(str(error).removeprefix("teacher: ")) from error


def _open(name: str, contract: dict, crop: str, people: int | None) -> Set:
    if name == "orl":
        from kdlab.data.orl import load_orl

        faces = load_orl((contract["crop"],))
        return Set(name, "orl", faces, faces.labels)
    if name in PROTOCOLS:
        p: Protocol = protocol(name, identities=people)
        return Set(name, "protocol", p.faces, p.faces.labels, p.arrays())
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"{name} is no set: it is neither orl nor a protocol "
                                f"({', '.join(PROTOCOLS)}), and there is no such file or folder")
    if crop != contract["crop"]:
        raise ValueError(f"{name}: the model looks at the {contract['crop']!r} crop, these "
                         f"pictures are taken to be {crop!r}; if they are not, say so with "
                         f"--crop {contract['crop']}")
    size = contract["size"]
    if path.suffix == ".bin":
        from kdlab.data.bins import read_bin

        found = read_bin(path, size, crop)
        return Set(name, "bin", found.pictures, None, is_same=found.is_same)
    if path.suffix == ".rec" or path.is_dir() and any(path.glob("*.rec")):
        from kdlab.data.recordio import RecordIOFaces

        faces = RecordIOFaces(path, size, crop)
        return Set(name, "recordio", faces, faces.labels)
    if path.is_dir():
        from kdlab.data.folder import ImageFolder

        faces = ImageFolder(path, size, crop)
        return Set(name, "folder", faces, faces.labels)
    raise ValueError(f"{name} is no set of faces; name a folder, a .rec or a .bin")


def _judged(teacher: Teacher, one: Set) -> tuple[dict, dict]:
    """(result, what the figures are drawn of)."""
    both = embed_set(teacher, one.faces).array
    x = unit_rows(both[:, 0].astype(np.float32) + both[:, 1])
    result = {"kind": one.kind, "pictures": len(x)}
    if one.labels is not None:
        result["people"] = len(np.unique(one.labels))
    if one.kind != "bin" and len(x) > LARGE and one.kind != "protocol":
        return _of_many(teacher, one, x, result)
    rows = np.arange(len(x))  # of the picture that stands for an embedding
    if one.kind == "bin":
        pairs = pairs_of(x, one.is_same)
        found = ten_fold(x, one.is_same, min(10, len(one.is_same)))
        result["accuracy"] = {"mean": found.accuracy, "spread": found.spread, "low": found.low,
                              "high": found.high, "folds": len(found.folds)}
    else:
        arrays = one.arrays or {"labels": one.labels, "a": rows, "b": rows}
        said = judge(x, **arrays)
        result |= {"rank1": said["rank1"]}
        if "groups" in said:
            result["groups"] = {str(g): {"eer": part["eer"], "genuine": part["genuine"],
                                         "impostor": part["impostor"], "rank1": part["rank1"],
                                         "tpr": {f"{f:g}": t for f, t in part["tpr"].items()}}
                                for g, part in said["groups"].items()}
        pairs, rows = meeting(x, **arrays)
    genuine, impostor = pairs.score[pairs.same], pairs.score[~pairs.same]
    result |= {"genuine": len(genuine), "impostor": len(impostor), "eer": eer(genuine, impostor),
               "tpr": [_point(fpr, len(impostor), tpr_at_fpr(genuine, impostor, fpr))
                       for fpr in FPRS]}
    return result, {"genuine": genuine, "impostor": impostor,
                    "pairs": (len(genuine), len(impostor)), "curve": roc(genuine, impostor)[:2],
                    "worst": _worst(teacher, one, pairs, rows)}


def _of_many(teacher: Teacher, one: Set, x: np.ndarray, result: dict) -> tuple[dict, dict]:
    """As _judged, of a set whose pairs do not fit in memory: rates of all, figures of a sample."""
    labels = one.labels
    known = np.unique(labels, return_counts=True)[1].astype(np.int64)
    genuine = int((known * (known - 1) // 2).sum())
    able = supported_fprs(len(x) * (len(x) - 1) // 2 - genuine)
    found = all_versus_all(x, labels, able or FPRS[:1])
    fpr, tpr, _ = curve(found)
    gap = fpr - (1 - tpr)
    k = int(np.argmax(gap >= 0))  # as evaluate.eer, on the points that are kept
    share = -gap[k - 1] / (gap[k] - gap[k - 1])
    result |= {"genuine": genuine, "impostor": found.impostors,
               "eer": float(fpr[k - 1] + share * (fpr[k] - fpr[k - 1])),
               "tpr": [_point(f, found.impostors, found.points.get(f)) for f in FPRS]}
    order = np.random.default_rng(0).permutation(known.size)  # whole people, so that pairs meet
    most = np.searchsorted(np.cumsum(known[order]), LARGE, "right")
    names = np.unique(labels)[order[:max(most, 2)]]
    rows = np.flatnonzero(np.isin(labels, names))[:LARGE]
    pairs, _ = meeting(x[rows], labels[rows], np.arange(len(rows)), np.arange(len(rows)))
    result["sample"] = len(rows)
    return result, {"genuine": pairs.score[pairs.same], "impostor": pairs.score[~pairs.same],
                    "pairs": (genuine, found.impostors), "curve": (fpr, tpr),
                    "worst": _worst(teacher, one, pairs, rows)}


def _point(fpr: float, impostors: int, point) -> dict:
    needed = EXPECTED * round(1 / fpr)
    if impostors < needed:
        return {"fpr": fpr, "supported": False, "tpr": None, "needs": needed, "has": impostors}
    return {"fpr": fpr, "supported": True, "tpr": point.tpr, "low": point.low, "high": point.high,
            "threshold": point.threshold, "fpr_reached": point.fpr}


def _worst(teacher: Teacher, one: Set, pairs: Pairs, rows: np.ndarray) -> tuple:
    """The pairs most wrong: left and right (P, 3, S, S) uint8, scores (P,), titles.

    rows: (N,) the picture that stands for each embedding.
    """
    crop, size = teacher.contract["crop"], teacher.contract["size"]
    worst = worst_of(pairs, None if one.labels is None else one.labels[rows], WORST)
    left, right = (one.faces.read(crop, size, rows[side[worst]]).numpy()
                   for side in (pairs.i, pairs.j))
    titles = ["genuine" if same else "impostor" for same in pairs.same[worst]]
    return left, right, pairs.score[worst], titles
