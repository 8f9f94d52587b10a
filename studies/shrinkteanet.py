"""ShrinkTeaNet's Table 2 in miniature: do small students learn better from angles or from L2?

Four students, each trained on the same batches by ArcFace alone, by ArcFace and squared distances
(maps of three stages and the embedding), and by ArcFace and angles (three maps finished by the
teacher's tail and the embedding). The two losses differ in the distance and in the tail. Variants
of one student: the embedding alone, equation (4) squared, the last map, equal lambdas.

The learning rate is chosen for each student by labels alone, which favours the baseline; the
factors on lambda are chosen for one student, as many for each loss. All on validation people. Every
seed is judged once: TPR at FPR 1e-3 on three protocols, and the ORL photographs. The result of a
row is the paired difference to its control, bootstrapped over people and seeds.

The plan was not made blind. A first search ended at the edge of its values (rate 0.1, factors 16
and 100), and there L2 stood above angles (two students, one seed, judged). The search was widened,
all whose settings changed was trained and judged again, and now angles stood above L2. So for one
student each loss is also given a rate of its own (rows "own").

The runs are short (6,000 pictures seen), for the tails cost more than the students do. The paper's
numbers are another world: MS1MV2, a 64 M teacher, accuracies in percent.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdlab.data.batches import Batches
from kdlab.data.embeddings import embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.evaluate.draws import compare_draws, keep_draws, rate_draws
from kdlab.evaluate.intervals import people_counts, tpr_of_draws
from kdlab.evaluate.pairs import pair_scores, unit_rows
from kdlab.evaluate.verification import embed, tpr_at_fpr
from kdlab.losses import ArcFace, FeatureL2, ShrinkTeaNet
from kdlab.models.iresnet import IResNet
from kdlab.models.mobilefacenet import MobileFaceNet, conv
from kdlab.results import results_folder
from kdlab.teachers import Teacher, load_teacher
from kdlab.train import TrainConfig, train
from kdlab.world import FaceWorld, rendered
from kdlab.world.protocols import protocol

MINUTES = 60  # one process on one core
SIZE = 48  # the networks' input, pixels
FPR = 1e-3  # by which validation chooses and the protocols judge
ORL = (1e-2, 1e-3)  # FPRs that ORL's pairs support
SAMPLES = 500  # draws of people
# ArcFace's own 64 and 0.5 learn little in 200 steps; a first look on validation people chose these.
SCALE, MARGIN = 32, 0.2
L2 = 0.001  # lambda_n of squared distances, paper section 4
CLIP = 5.0  # largest norm of the student's gradient, TrainConfig's default
MEAN = f"mean tpr@{FPR:g}"  # over the protocols


def cells(config: dict, done: dict) -> list[dict]:
    """Each student's rate, the two factors, then rows and variants, all of a seed together."""
    common = {k: config[k] for k in ("world", "teacher", "epochs", "batch_size", "threads")}

    def cell(name: str, network: str, seed: int, lr: float, options: dict, **more) -> dict:
        return {**common, "name": name, "student": network, "network": config["networks"][network],
                "seed": seed, "lr": lr, "options": options, **more}

    known = {"kind": "search", "validation": config["validation"]}
    seed, tuned = config["search_seed"], config["tuned"]
    rates = {network: {lr: cell(f"search-{network}-lr{lr}", network, seed, lr, {}, **known)
                       for lr in config["lr"]} for network in config["networks"]}
    plan = [one for tried in rates.values() for one in tried.values()]
    lr = {network: chosen(tried, done) for network, tried in rates.items()}
    if None in lr.values():
        return plan
    tried = {loss: {f: cell(f"search-{loss}-factor{f}", tuned, seed, lr[tuned],
                            {"loss": loss, "factor": f}, **known) for f in values}
             for loss, values in config["factor"].items()}
    plan += [one for of_loss in tried.values() for one in of_loss.values()]
    factor = {loss: chosen(of_loss, done) for loss, of_loss in tried.items()}
    if None in factor.values():
        return plan

    def rows(networks: list[str], options: dict, seed: int) -> list[dict]:
        return [cell(f"{network}-{row}-seed{seed}", network, seed, lr[network],
                     {"factor": factor[own["loss"]], **own} if own else {},
                     kind="final", row=row, protocols=config["protocols"])
                for network in networks for row, own in options.items()]

    plan += [one for seed in config["seeds"]
             for one in rows(list(config["networks"]), config["rows"], seed)]
    for loss, at in config["own"].items():  # a rate for the loss itself, among more settings
        more = {(at["lr"], f): cell(f"search-{loss}-lr{at['lr']}-factor{f}", tuned, config[
            "search_seed"], at["lr"], {"loss": loss, "factor": f}, **known) for f in at["factor"]}
        plan += more.values()
        best = chosen({(lr[tuned], f): one for f, one in tried[loss].items()} | more, done)
        if best is None:
            return plan
        plan += [cell(f"{tuned}-own_{loss}-seed{seed}", tuned, seed, best[0],
                      {"loss": loss, "factor": best[1]}, kind="final", row=f"own_{loss}",
                      protocols=config["protocols"]) for seed in config["seeds"]]
    return plan + [one for seed in config["seeds"]
                   for one in rows([tuned], config["variants"], seed)]


def chosen(tried: dict, done: dict):
    """The value whose cell did best in validation; None while one of them is missing."""
    if any(cell["name"] not in done for cell in tried.values()):
        return None
    return max(tried, key=lambda value: done[tried[value]["name"]]["validation"])


def faces(world: FaceWorld, part: dict) -> FaceSet:
    first = part.get("first", 0)
    return rendered(world, range(first, first + part["identities"]), part["per_identity"])


def run(cell: dict, folder: Path) -> dict:
    torch.set_num_threads(cell["threads"])
    world = FaceWorld(seed=cell["world"]["seed"])
    teacher = load_teacher(cell["teacher"])
    student, out = teach(cell, faces(world, cell["world"]), teacher)
    out["world"] = world.key
    if cell["kind"] == "search":
        seen = faces(world, cell["validation"])
        scores = pair_scores(embed(student, seen.pixels("arcface", SIZE)), seen.labels)
        return {**out, "validation": tpr_at_fpr(*scores, FPR).tpr}
    rates, draws = judged(student, teacher, cell["protocols"])
    keep_draws(results_folder("shrinkteanet"), cell["name"], draws)
    return out | rates


def network(kind: dict, D: int) -> nn.Module:
    """A small IR network, or a MobileFaceNet for pictures of 48 pixels, four stages each."""
    if "units" in kind:
        made = IResNet(tuple(kind["units"]), tuple(kind["channels"]), D, input_size=SIZE, stem=16,
                       strides=(2, 1, 2, 2, 2))  # ir_student's
    else:
        made = MobileFaceNet(D, kind["channels"], kind["down"], kind["expand"])
        width = kind["down"][-1]  # of the head, 512 in the large one
        made.input_size = SIZE
        made.head = nn.Sequential(
            conv(kind["channels"][-1], width, 1),
            conv(width, width, 3, groups=width, activation=False),  # the last map has 3 x 3 pixels
            nn.Flatten(), nn.Linear(width, D, bias=False), nn.BatchNorm1d(D, affine=False))
    return made.to(memory_format=torch.channels_last)


def distillation(options: dict, student: nn.Module, teacher: Teacher) -> nn.Module | None:
    """The loss of a row, None without one."""
    own = {k: v for k, v in options.items() if k not in ("loss", "factor", "halved")}
    if options.get("loss") == "l2":
        return FeatureL2(student.channels, teacher.channels, L2 * options["factor"],
                         **{"last": "embedding", **own})
    if options.get("loss") != "angular":
        return None
    loss = ShrinkTeaNet(student.channels, teacher.channels, teacher.tail,
                        weight=options["factor"], **own)
    if not options.get("halved", True):
        loss.register_forward_hook(alike)
    return loss


def alike(loss: nn.Module, inputs: tuple, terms: dict) -> dict:
    """A hook that takes equation (7)'s halving back: every stage gets lambda_n."""
    last = len(terms) - 1
    return {name: value * 2 ** (last - i) for i, (name, value) in enumerate(terms.items())}


def teach(cell: dict, known: FaceSet, teacher: Teacher) -> tuple[nn.Module, dict]:
    """The cell's student after training, and what to record of it."""
    torch.manual_seed(cell["seed"])
    D, classes = teacher.embedding_size, cell["world"]["identities"]
    student = network(cell["network"], D)
    own = {"softmax": ArcFace(D, classes, SCALE, MARGIN)}
    loss = distillation(cell["options"], student, teacher)
    if loss is not None:
        own["kd"] = loss
    # Angles need the tail and, of the whole teacher, no more than cached embeddings.
    source = teacher if isinstance(loss, FeatureL2) else loss and embed_set(teacher, known)
    batches = Batches(known.pixels("arcface", SIZE), known.labels, cell["batch_size"],
                      seed=cell["seed"], channels_last=True, crop="arcface", key=known.key)
    config = TrainConfig(epochs=cell["epochs"], batch_size=cell["batch_size"], lr=cell["lr"],
                         seed=cell["seed"], clip=CLIP, share_every=0, device="cpu")
    try:
        columns = train(config, student, own, batches, source).columns
    except FloatingPointError as error:
        columns = error.history.columns
        if cell["kind"] != "search":
            raise
    norms = np.asarray(columns["gradient_norm"], float)
    return student, {
        "teacher": teacher.hash, "parameters": sum(p.numel() for p in student.parameters()),
        "images_per_second": float(np.median(columns["images_per_second"])),
        "terms": {name: float(np.mean(values[-10:])) for name, values in columns.items()
                  if "/" in name},
        "gradient": {"median": float(np.median(norms)), "most": float(norms.max()),
                     "clipped": float((norms > CLIP).mean())}}


def judged(student: nn.Module, teacher: Teacher, protocols: list[str]) -> tuple[dict, dict]:
    """TPR of every protocol, their mean, ORL; and the draws of people.

    "cosine", "norm": to the teacher's embedding of a picture; the student's is that of the picture
    and its mirror, summed, so that a norm of 2 is the teacher's own.
    """
    rates, draws = {}, {}
    for name in protocols:
        p = protocol(name)
        pixels, labels = p.faces.pixels("arcface", SIZE), p.faces.labels
        x = embed(student, pixels)
        counts = people_counts(labels, SAMPLES, np.random.default_rng(0))
        counts = np.concatenate([np.ones_like(counts[:1]), counts])
        found = tpr_of_draws(x, labels, FPR, counts, p.a, p.b)
        draws[f"{name} tpr@{FPR:g}"] = found.astype(np.float32)
        theirs = embed_set(teacher, p.faces).array[:, 0]  # of the pictures, without their mirrors
        rates[name] = {f"tpr@{FPR:g}": float(found[0]),
                       "cosine": float((unit_rows(x) * unit_rows(theirs)).sum(1).mean()),
                       "norm": float(np.linalg.norm(x, axis=1).mean()
                                     / np.linalg.norm(theirs, axis=1).mean())}
    draws[MEAN] = np.mean([*draws.values()], axis=0)
    rates["mean"] = {part: float(np.mean([rates[name][part] for name in protocols]))
                     for part in (f"tpr@{FPR:g}", "cosine", "norm")}
    orl = load_orl(("arcface",))
    rates["orl"], found = rate_draws(embed(student, orl.pixels("arcface", SIZE)), orl.labels, ORL,
                                     SAMPLES)
    return rates, draws | {f"orl {key}": values for key, values in found.items()}


def summarise(results: list[dict], folder: Path) -> dict:
    """Every row, its paired differences, what was chosen."""
    final = [r for r in results if r["cell"]["kind"] == "final"]
    tried = {}
    for r in results:
        if r["cell"]["kind"] == "search":
            cell = r["cell"]
            what, value = cell["student"], cell["lr"]
            if cell["options"]:
                own = "-lr" in cell["name"]
                what = cell["options"]["loss"] + (f", rate {value:g}" if own else "")
                value = cell["options"]["factor"]
            tried.setdefault(what, {})[value] = r["result"]["validation"]
    taken = {what: max(found, key=found.get) for what, found in tried.items()}
    rows = {}
    for r in final:
        name = f"{r['cell']['student']}-{r['cell']['row']}"
        rows.setdefault(name, {})[r["cell"]["seed"]] = r["result"]
    parts = [*final[0]["cell"]["protocols"], "mean", "orl", "gradient", "terms"]
    out = {"seeds": sorted({r["cell"]["seed"] for r in final}), "chosen": taken,
           "world": final[0]["result"]["world"],
           "tried": {what: {str(v): score for v, score in found.items()}
                     for what, found in tried.items()},
           "at_the_edge_of_the_search": [what for what, found in tried.items()
                                         if taken[what] in (min(found), max(found))],
           "rows": {}, "difference": {}}
    for row, runs in rows.items():
        first = next(iter(runs.values()))
        out["rows"][row] = {"parameters": first["parameters"], "images_per_second": [
            run["images_per_second"] for run in runs.values()]} | {
            part: {name: [run[part][name] for run in runs.values()] for name in first[part]}
            for part in parts}
    for row, control in compared(rows):
        both = [seed for seed in rows[row] if seed in rows[control]]
        if both:
            out["difference"][f"{row} - {control}"] = compare_draws(
                folder, *([f"{name}-seed{seed}" for seed in both] for name in (row, control)))
    return out


def compared(rows: dict) -> list[tuple[str, str]]:
    """(row, control): taught against alone, angles against L2, a variant against what it varies."""
    pairs = []
    for row in rows:
        student, kind = row.split("-")
        if kind != "alone":
            pairs.append((row, f"{student}-alone"))
        if kind.endswith("angular"):
            pairs.append((row, f"{student}-{kind.replace('angular', 'l2')}"))
        if kind not in ("alone", "l2", "angular"):
            pairs.append((row, f"{student}-{'l2' if 'l2' in kind else 'angular'}"))
    return [(row, control) for row, control in pairs if control in rows]
