"""First light: does a teacher help a small network that never saw a real face?

One student, one set of rendered training faces, three ways to learn: ArcFace alone, AdaDistill
and FeatureOnly from dlib's ResNet-29. Each method's learning rate is chosen on rendered
validation identities; then every seed is judged once on held-out rendered identities and on
the ORL photographs. The result is the paired difference to ArcFace, bootstrapped over people and
seeds. The untrained network is judged too: what aligned pictures give for nothing.
"""

from pathlib import Path

import numpy as np
import torch

from kdlab.data.batches import Batches
from kdlab.data.embeddings import embed_set
from kdlab.data.orl import load_orl
from kdlab.evaluate.intervals import paired_difference
from kdlab.evaluate.verification import eer, embed, pair_scores, tpr_at_fpr
from kdlab.losses import LOSSES
from kdlab.models import MODELS
from kdlab.results import results_folder
from kdlab.teachers import load_teacher
from kdlab.train import TrainConfig, train
from kdlab.world import FaceWorld, rendered

MINUTES = 50  # measured, two processes side by side on a busy machine
FPRS = (1e-2, 1e-3)
SIZE = 48  # the student's input, pixels


def cells(config: dict, done: dict) -> list[dict]:
    """The search first; the judged runs once every learning rate is chosen."""
    common = {k: config[k] for k in ("world", "student", "embedding_size", "epochs", "batch_size",
                                     "threads")}
    search = [{**common, "name": f"search-{method}-lr{lr}", "kind": "search", "method": method,
               "loss": spec["loss"], "lr": lr, "seed": config["search_seed"],
               "validation": config["validation"]}
              for method, spec in config["methods"].items() for lr in spec["lr"]]
    if any(cell["name"] not in done for cell in search):
        return search
    chosen = {method: max(spec["lr"], key=lambda lr, m=method:
                          done[f"search-{m}-lr{lr}"]["validation"]["tpr@0.001"])
              for method, spec in config["methods"].items()}
    judged = [{**common, "name": f"final-{method}-seed{seed}", "kind": "final", "method": method,
               "loss": spec["loss"], "lr": chosen[method], "seed": seed, "test": config["test"]}
              for seed in config["seeds"] for method, spec in config["methods"].items()]
    untrained = [{"name": f"final-untrained-seed{seed}", "kind": "final", "method": "untrained",
                  "loss": None, "seed": seed, "test": config["test"],
                  **{k: common[k] for k in ("world", "student", "embedding_size", "threads")}}
                 for seed in config["seeds"]]
    return search + judged + untrained


def faces(world: FaceWorld, part: dict, crops=("arcface", "dlib")):
    first = part.get("first", 0)
    return rendered(world, range(first, first + part["identities"]), part["per_identity"], crops)


def metrics(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    genuine, impostor = pair_scores(embeddings, labels)
    return {"eer": eer(genuine, impostor), "genuine": len(genuine), "impostor": len(impostor),
            **{f"tpr@{fpr:g}": tpr_at_fpr(genuine, impostor, fpr).tpr for fpr in FPRS}}


def run(cell: dict, folder: Path) -> dict:
    torch.set_num_threads(cell["threads"])
    world = FaceWorld(seed=cell["world"]["seed"])
    torch.manual_seed(cell["seed"])
    student = MODELS[cell["student"]](embedding_size=cell["embedding_size"])
    student = student.to(memory_format=torch.channels_last).eval()
    out = {"world": world.key, "threads": torch.get_num_threads()}
    if cell["loss"]:
        out |= teach(cell, world, student)
    if cell["kind"] == "search":  # no photograph is looked at while choosing
        seen = faces(world, cell["validation"])
        out["validation"] = metrics(embed(student, seen.pixels("arcface", SIZE)), seen.labels)
        return out
    kept = {}
    for name, seen in (("test", faces(world, cell["test"])), ("orl", load_orl())):
        # Judged as stored, so that whoever reads the file finds the same numbers.
        kept[name] = embed(student, seen.pixels("arcface", SIZE)).astype(np.float16)
        out[name] = metrics(kept[name].astype(np.float32), seen.labels)
    kept_in = results_folder("first_light") / "embeddings"
    kept_in.mkdir(parents=True, exist_ok=True)
    np.savez(kept_in / f"{cell['name']}.npz", **kept)
    return out


def teach(cell: dict, world: FaceWorld, student: torch.nn.Module) -> dict:
    """Train the student as the cell says; what the record keeps of it."""
    known, teacher = faces(world, cell["world"]), load_teacher()
    kind, D = LOSSES[cell["loss"]], cell["embedding_size"]
    loss = kind() if cell["loss"] == "FeatureOnly" else kind(D, cell["world"]["identities"])
    batches = Batches(known.pixels("arcface", SIZE), known.labels, cell["batch_size"],
                      seed=cell["seed"], channels_last=True, crop="arcface", key=known.key)
    config = TrainConfig(epochs=cell["epochs"], batch_size=cell["batch_size"], lr=cell["lr"],
                         warmup=0.05, seed=cell["seed"], log_every=20)
    history = train(config, student, {cell["method"]: loss}, batches,
                    None if cell["loss"] == "ArcFace" else embed_set(teacher, known))
    speed = history.columns["images_per_second"]
    return {"teacher": teacher.hash, "loss": float(history.columns["loss"][-1]),
            "images_per_second": float(np.median(speed))}


def embeddings(folder: Path, method: str, seeds: list[int], part: str) -> list[np.ndarray]:
    """The stored embeddings of a method's judged runs, one (N, D) array a seed."""
    found = []
    for seed in seeds:
        with np.load(folder / "embeddings" / f"final-{method}-seed{seed}.npz",
                     allow_pickle=False) as kept:
            found.append(kept[part].astype(np.float32))
    return found


def summarise(results: list[dict], folder: Path) -> dict:
    """Means over seeds and the paired differences to ArcFace, on ORL and on rendered faces."""
    final = [r for r in results if r["cell"]["kind"] == "final"]
    seeds = sorted({r["cell"]["seed"] for r in final})
    methods = list(dict.fromkeys(r["cell"]["method"] for r in final))
    test = final[0]["cell"]["test"]
    labels = {"orl": np.repeat(np.arange(40), 10),
              "test": np.repeat(np.arange(test["identities"]), test["per_identity"])}
    out = {"seeds": seeds, "lr": {r["cell"]["method"]: r["cell"].get("lr") for r in final},
           "world": final[0]["result"]["world"], "methods": {}, "difference_to_arcface": {},
           "lr_at_the_edge_of_the_search": []}
    for method in methods:
        tried = [r["cell"]["lr"] for r in results
                 if r["cell"]["kind"] == "search" and r["cell"]["method"] == method]
        if out["lr"][method] in (min(tried, default=0), max(tried, default=0)):
            out["lr_at_the_edge_of_the_search"].append(method)
        rows = [r["result"] for r in final if r["cell"]["method"] == method]
        out["methods"][method] = {
            part: {name: {"mean": float(np.mean([r[part][name] for r in rows])),
                          "values": [r[part][name] for r in rows]}
                   for name in ("eer", *(f"tpr@{f:g}" for f in FPRS))} for part in labels}
    for method in methods:
        if method in ("arcface", "untrained"):
            continue
        out["difference_to_arcface"][method] = {}
        for part, who in labels.items():
            pair = [embeddings(folder, m, seeds, part) for m in (method, "arcface")]
            for fpr in FPRS:
                d = paired_difference(*pair, who, fpr)
                out["difference_to_arcface"][method][f"{part} tpr@{fpr:g}"] = {
                    "estimate": d.estimate, "low": d.low, "high": d.high,
                    "per_seed": list(d.per_seed)}
    photos = load_orl()
    both = embed_set(load_teacher(), photos).array.sum(1)  # picture plus mirror, as the students
    out["teacher"] = {"orl": metrics(both, photos.labels)}
    return out
