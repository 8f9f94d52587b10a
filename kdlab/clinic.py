"""The teacher clinic: how a network wants its pictures, measured, and what its embeddings are like.

A network fed with its channels swapped, or scaled in another way, works a little less well and
complains of nothing. So every way in use is tried on faces of known people: channels RGB or BGR,
five scalings and the file's own, two crops (kdlab.preprocessing). They are chosen on rendered
faces, whose colours and people are known, then held against the photographs of ORL. Embeddings are
centred on their own mean first: a network whose embeddings all lie in one cone, as dlib's do, is
judged by what it tells apart.
"""

import math
from pathlib import Path

import numpy as np
from torch import nn

from kdlab.align import SIZES
from kdlab.contract import INPUT, read_contract, write_contract
from kdlab.data.faces import FaceSet
from kdlab.dimension import two_nn
from kdlab.evaluate.intervals import eer_of_draws
from kdlab.evaluate.pairs import pair_scores, unit_rows
from kdlab.evaluate.separation import separation_of_draws
from kdlab.preprocessing import (
    MARGIN,
    OWN,
    WAY,
    centred_eer,
    draws_of,
    embedded,
    interval,
    judge,
    pixels_of,
    same,
    ways,
)
from kdlab.progress import progress
from kdlab.teachers import TEACHERS, load_teacher

PEOPLE, EACH, DRAWS = 40, 4, 500  # people, pictures of each, draws of the bootstrap; ours: enough
# to tell the channels of our own networks apart, in half a minute
HOPELESS = 0.25  # EER, ours: of networks in use, dlib's with the wrong crop has 10 % here
SHOWN = 8  # ways listed for a person; all are in the JSON
DEAD = 1e-3  # a dimension whose spread is this share of the median one says nothing; ours


def check(path: str | Path, *, people: int = PEOPLE, draws: int = DRAWS, size: int | None = None,
          output: str | None = None, write: bool = True) -> dict:
    """Examine an .onnx file, a teacher's .safetensors, a run's student, or a teacher by name.

    people: rendered people, 4 pictures of each, 8 at least.   size, output: of an ONNX file that
    leaves its pictures' side open, or has several outputs.   write: where the file has no contract
    or a wrong one, write the right one beside it (kdlab.contract); training then keeps to it.

    Returns a report for JSON: "hypotheses" (the ways tried, best first), "verdict", "orl",
    "embedding", "claimed" and "agrees" (what the file said, or None), "contract" (or None, where
    nothing works), "written" (a path, or None); `words` says it in lines.
    Raises FileNotFoundError, OSError, or ValueError in one line.
    """
    if people < 8 or draws < 100:
        raise ValueError(f"the clinic needs 8 people and 100 draws at least, not {people} and "
                         f"{draws}")
    network, side, D, claimed, about = _open(path, size, output)
    faces, orl = _rendered(people), _orl()
    every = ways(claimed)
    tried = judge(network, side, faces, every, draws)
    level = [way for way in tried if way["level"]]
    # Of ways that cannot be told apart, the one nearest to what the file says, then the usual one.
    best = min(level, key=lambda way: (
        sum(way[key] != claimed[key] for key in INPUT if key != "size") if claimed else 0,
        every.index(_way(way))))
    works = tried[0]["eer"] <= HOPELESS
    verdict = {key: list(dict.fromkeys([best[key], *(way[key] for way in level)]))
               for key in ("channels", "scaling", "crop")}
    photographs = _confirm(network, side, orl, best, tried, claimed, draws)
    report = {
        **about, "size": side, "embedding_size": D, "people": people, "pictures": len(faces),
        "claimed": claimed and {key: claimed[key] for key in INPUT},
        "agrees": None if claimed is None else same(best, claimed),
        "works": works, "chosen": _way(best), "verdict": verdict, "hypotheses": tried,
        "orl": photographs,
        "embedding": {"rendered": _embedding(network, side, faces, best),
                      "orl": _embedding(network, side, orl, best)},
        "contract": None, "written": None}
    if works:
        report["contract"] = {**{key: best[key] for key in INPUT if key != "size"}, "size": side,
                              "embedding_size": D} | ({"output": output} if output else {})
    if works and not report["agrees"] and write and about["writable"]:
        found = {"eer": best["eer"], "orl_eer": photographs["rows"][0]["eer"],
                 "cannot_tell": [key for key, values in verdict.items() if len(values) > 1]}
        where = write_contract(path, about["sha256"], report["contract"] | {"found": found})
        report["written"] = str(where)
    return report


def _open(path: str | Path, size: int | None, output: str | None) -> tuple:
    """(network, side of its pictures, D, the contract it claims or None, about the file)."""
    file = Path(path)
    if file.suffix == ".onnx":
        from kdlab.onnx_teacher import OnnxNetwork

        network = OnnxNetwork(file, size, output)
        about = {"file": str(file), "sha256": network.hash, "writable": True,
                 "layout": network.layout, "batch": network.batch}
        claimed = read_contract(file, network.hash)
        return network, network.input_size, network.embedding_size, claimed, about
    if (file.parent / "run.yaml").is_file() and file.is_file():
        from kdlab.train.taught import run_teacher

        teacher, ours = run_teacher(str(path)), True
    else:
        teacher = load_teacher(path, raw=True)
        ours = file.suffix != ".safetensors" or file.resolve().parent == TEACHERS
    c = teacher.contract
    about = {"file": str(path), "sha256": teacher.hash, "writable": not ours}
    return teacher.network, c["size"], c["embedding_size"], {"channels": "RGB", **c}, about


def _rendered(people: int) -> FaceSet:
    from kdlab.world import FaceWorld, rendered
    from kdlab.world.protocols import VALIDATION

    return rendered(FaceWorld(0), VALIDATION[:people], EACH, tuple(SIZES))


def _orl() -> FaceSet:
    """The first pictures of everybody."""
    from kdlab.data.orl import load_orl

    faces = load_orl(tuple(SIZES))
    rows = np.flatnonzero(faces.factors["image"] <= EACH)
    return FaceSet({crop: x[rows] for crop, x in faces.crops.items()}, faces.labels[rows],
                   f"{faces.key} first {EACH}")


def _way(row: dict) -> dict:
    return {key: row[key] for key in WAY}


def _confirm(network: nn.Module, side: int, faces: FaceSet, best: dict, tried: list[dict],
             claimed: dict | None, draws: int) -> dict:
    """The chosen way on photographs, beside its rivals: what the file claims, the best of another
    scaling, the best of another crop. Grey pictures tell no channels.

    Returns {"rows": the chosen way first, each with "eer", "eer_interval", "separation" and
    "ahead", the interval of how far it lies ahead of the chosen one; "confirmed": no rival does}.
    """
    rivals = [way for way in tried if claimed and same(way, claimed)]
    for key in ("scaling", "crop"):
        rivals += [way for way in tried if way[key] != best[key] and not way["level"]][:1]
    alike = {(way["scaling"], way["crop"]): _way(way) for way in [*rivals[::-1], best]}
    counts, rows = draws_of(faces.labels, draws), []
    for way in progress(list(alike.values())[::-1], "photographs"):
        x = embedded(network, pixels_of(faces, way["crop"], side), way)
        if not np.isfinite(x).all():
            continue
        rows.append({**way, "eer": centred_eer(x, faces.labels), "eer_interval": interval(
            eer_of_draws(x - x.mean(0), faces.labels, counts)),
            "drawn": separation_of_draws(x, faces.labels, counts)})
    if not rows or _way(rows[0]) != _way(best):
        raise ValueError("its embeddings of photographs are not finite (NaN or inf); the file is "
                         "damaged")
    drawn = [row.pop("drawn") for row in rows]
    for row, own in zip(rows, drawn, strict=True):
        row |= {"separation": float(own[0]), "ahead": interval(own - drawn[0])}
    return {"rows": rows, "confirmed": all(row["ahead"][0] <= MARGIN for row in rows),
            "pictures": len(faces)}


def _embedding(network: nn.Module, side: int, faces: FaceSet, way: dict) -> dict:
    """What the embeddings of a set are like, as the network gives them, prepared in that way."""
    pixels = pixels_of(faces, way["crop"], side)
    x, mirrored = (embedded(network, images, way) for images in (pixels, pixels.flip(3)))
    norm, unit, spread = np.linalg.norm(x, axis=1), unit_rows(x).astype(np.float64), x.std(0)
    strangers = float(np.clip(pair_scores(x, faces.labels)[1].mean(dtype=np.float64), -1, 1))
    found = {
        "norm": float(norm.mean()), "norm_spread": float(norm.std()),
        "dead": np.flatnonzero(spread <= DEAD * np.median(spread)).tolist(),
        "cone": float(np.linalg.norm(unit.mean(0))),
        "strangers": strangers, "strangers_degrees": math.degrees(math.acos(strangers)),
        "mirror": float((unit * unit_rows(mirrored)).sum(1).mean()),
    }
    first = np.unique(faces.labels, return_index=True)[1]  # one picture of each person
    try:
        d = two_nn(x[first], normalize=True)
        return found | {"dimension": d.dimension, "dimension_stderr": d.stderr, "points": d.n}
    except ValueError:  # hardly two of them differ, which the other numbers say
        return found | {"dimension": None, "dimension_stderr": None, "points": len(first)}


def words(report: dict) -> str:
    """The report in lines for a terminal."""
    best, orl = report["chosen"], report["orl"]
    lines = [f"{report['file']}: {report['embedding_size']} numbers a picture of {report['size']} "
             f"x {report['size']} pixels",
             f"tried on {report['pictures']} rendered pictures of {report['people']} people, best "
             "first:", f"  {'':9}{'scaling':21}{'crop':9}{'EER':>7}{'d prime, 95 % interval':>26}"]
    for way in report["hypotheses"][:SHOWN]:
        lines.append(f"  {way['channels']:9}{way['scaling']:21}{way['crop']:9}{way['eer']:7.1%}"
                     f"{way['separation']:10.2f} [{way['low']:5.2f}, {way['high']:5.2f}]"
                     + " best, or not told from it" * way["level"])
    if not report["works"]:
        lines.append(f"NOTHING WORKS: strangers are told apart no better than at an EER of "
                     f"{report['hypotheses'][0]['eer']:.0%}; this is no face network, or one that "
                     "wants pictures made in another way. No contract was written.")
    for key, values in report["verdict"].items():
        rest = f" (cannot tell it from {', '.join(values[1:])})" if values[1:] else ""
        lines.append(f"{key:9}{values[0]}{rest}")
    row = orl["rows"][0]
    low, high = row["eer_interval"]
    lines.append(f"photographs: EER {row['eer']:.1%} [{low:.1%}, {high:.1%}] of {orl['pictures']} "
                 "of ORL, grey (no channels in them); "
                 + ("no rival does better" if orl["confirmed"] else "NOT CONFIRMED, better: " +
                    ", ".join(f"{r['scaling']} {r['crop']} ({r['eer']:.1%})"
                              for r in orl["rows"] if r["ahead"][0] > MARGIN)))
    for name, e in report["embedding"].items():
        dimension = "not to be told" if e["dimension"] is None else (
            f"{e['dimension']:.0f} +- {e['dimension_stderr']:.0f} (TwoNN of {e['points']} points, "
            "few: low)")
        lines.append(
            f"embeddings, {name}: norm {e['norm']:.3g} +- {e['norm_spread']:.2g}; "
            f"{len(e['dead'])} dead dimensions; mean direction {e['cone']:.2f} long (0 even, 1 a "
            f"cone), strangers {e['strangers_degrees']:.0f} degrees apart; picture and mirror "
            f"{e['mirror']:.3f} alike; dimension {dimension}")
    if report["claimed"]:
        c = report["claimed"]
        said = next(way for way in report["hypotheses"] if same(way, c))
        lines.append(f"the file says {_short(said)}" + (
            ": held, nothing is told to be better" if report["agrees"] else
            f", the pictures say {_short(best)}: WRONG"))
    if report["agrees"] is False and not report["writable"]:
        lines.append("no contract was written: a run's student and a shipped teacher keep their "
                     "own")
    if report["written"]:
        lines.append(f"contract written: {report['written']}; training keeps to it")
    return "\n".join(lines)


def _short(way: dict) -> str:
    scaling = f"(x - {way['mean']}) / {way['divide']}" if way["scaling"] == OWN else way["scaling"]
    return f"{way['channels']}, {scaling}, crop {way['crop']}"
