"""ReFO in miniature: does a teacher tailored to a small network teach small networks better?

Two settings. "Scratch": the paper's procedure with a teacher so small that a laptop trains it, and
therefore hardly better than its students. Rows "vanilla" and "refo": a strong teacher, the shipped
one, fine-tuned for two epochs without and with reverse distillation; an approximation, for from
scratch it would take hours. Students then copy embeddings and see no label.

Learning rates are chosen on validation people, for the untailored teacher and its student, which
favours the control. Every seed is judged once, on held-out rendered people and on the ORL
photographs; differences are bootstrapped over people and seeds. Intrinsic dimensions are TwoNN fits
on pictures of strangers, one a person, as in the paper's sample, and on the training people.

The rows from scratch took the place of more fine-tuned ones after the first fine-tuned rows had
shown no difference: the plan was not made blind, though no row that was finished is left out. The
last two rows were added when all the others had been judged.

The paper's numbers are another world: MS1MV2, IR100, MFR-all.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t
from torch import nn

from kdlab.cache import cache_dir
from kdlab.data.batches import Batches
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.dimension import two_nn, two_nn_repeated
from kdlab.evaluate.draws import compare_draws, keep_draws, rate_draws
from kdlab.evaluate.pairs import pair_scores
from kdlab.evaluate.verification import embed, tpr_at_fpr
from kdlab.losses import ArcFace
from kdlab.models.iresnet import IResNet
from kdlab.results import results_folder
from kdlab.teachers import Teacher, load_teacher
from kdlab.train import TrainConfig
from kdlab.train.refo import refo
from kdlab.world import FaceWorld, rendered

MINUTES = 105  # measured, two processes side by side
SIZE = 48  # the networks' input, pixels
RATES = {"test": (1e-3, 1e-4), "orl": (1e-2, 1e-3)}  # FPRs that the pairs of each set support
CHOOSE = 1e-3  # the FPR by which validation chooses
SAMPLES = 500  # draws of people
PICTURES = 4  # of each training person, a sample each
# (row, control) whose dimensions are compared: a lighter network with the one twice its size or so;
# a tailored teacher with the same teacher untailored.
LIGHTER = [("labels-half", "labels-small"), ("labels-small", "labels-student"),
           ("labels-narrow", "labels-student"), ("labels-student", "teacher-scratch"),
           ("labels-half", "teacher-scratch"), ("labels-small", "teacher-vanilla")]
TAILORED = [("teacher-refo", "teacher-vanilla"),
            *((f"teacher-scratch_{how}", "teacher-scratch")
              for how in ("refo", "plus", "other", "beta1_2"))]


def cells(config: dict, done: dict) -> list[dict]:
    """The three rates and beta1; then each teacher, and its students once it is there."""
    common = {k: config[k] for k in ("world", "teacher", "epochs", "batch_size", "threads")}
    plan, taken = [], {}

    def cell(name: str, kind: str, row: dict, student: str | None, seed: int, **more) -> dict:
        who = [row["network"], *filter(None, [row.get("proxy"), student])]
        lr = {what: taken[what] for what in ("labels", "tuned", "features") if what in taken}
        return {**common, "name": name, "kind": kind, "row": row, "student": student, "seed": seed,
                "networks": {one: config["networks"][one] for one in who}, "lr": lr, **more}

    for what, options in config["search"].items():
        row, tried = {k: options[k] for k in ("network", "proxy") if k in options}, {}
        for value in options["values"]:
            tried[value] = one = cell(f"search-{what}-{value}", "search", dict(row),
                                      options.get("student"), config["search_seed"],
                                      validation=config["validation"])
            (one["row"] if what == "beta1" else one["lr"])[what] = value
        plan += tried.values()
        if any(one["name"] not in done for one in tried.values()):
            return plan
        taken[what] = max(tried, key=lambda v, of=tried: done[of[v]["name"]]["validation"])
    judged = {"test": config["test"], "strangers": config["strangers"]}
    plan += [cell(f"labels-{network}-seed{seed}", "labels", {"network": network}, None, seed,
                  **judged) for network in config["by_labels"] for seed in config["seeds"]]
    for name, options in config["rows"].items():
        row = {k: v for k, v in options.items() if k not in ("students", "beta2s")}
        if "proxy" in row:
            row.setdefault("beta1", taken["beta1"])
        for seed in config["seeds"]:
            plan.append(cell(f"teacher-{name}-seed{seed}", "teacher", row, None, seed, **judged))
            if plan[-1]["name"] not in done:
                continue
            plan += [cell(f"{name}-{student}-seed{seed}", "student", row, student, seed, **judged)
                     for student in options["students"]]
            plan += [cell(f"{name}-{student}-beta2_{beta2}-seed{seed}", "student",
                          row | {"beta2": beta2}, student, seed, **judged)
                     for student, values in options.get("beta2s", {}).items() for beta2 in values]
    return plan


def run(cell: dict, folder: Path) -> dict:
    torch.set_num_threads(cell["threads"])
    world = FaceWorld(seed=cell["world"]["seed"])
    known = faces(world, cell["world"])
    network = taught(cell, known)[cell["student"] or "teacher"]
    if cell["kind"] == "search":
        seen = faces(world, cell["validation"])
        scores = pair_scores(embed(network, seen.pixels("arcface", SIZE)), seen.labels)
        return {"world": world.key, "validation": tpr_at_fpr(*scores, CHOOSE).tpr}
    out = {"world": world.key, "parameters": sum(p.numel() for p in network.parameters()),
           "dimension": dimensions(network, known, faces(world, cell["strangers"]))}
    draws = {}
    for name, seen in (("test", faces(world, cell["test"])), ("orl", load_orl(("arcface",)))):
        x = embed(network, seen.pixels("arcface", SIZE))
        out[name], found = rate_draws(x, seen.labels, RATES[name], SAMPLES)
        draws |= {f"{name} {key}": values for key, values in found.items()}
    keep_draws(results_folder("refo"), cell["name"], draws)
    return out


def faces(world: FaceWorld, part: dict) -> FaceSet:
    first = part.get("first", 0)
    return rendered(world, range(first, first + part["identities"]), part["per_identity"])


def taught(cell: dict, known: FaceSet) -> dict[str, nn.Module]:
    """The networks of a cell's row; a step that another cell has trained is found on disk.

    A student by labels alone is a "teacher" without a proxy and without students.
    """
    row, lr, epochs = cell["row"], cell["lr"], cell["epochs"]
    batches = Batches(known.pixels("arcface", SIZE), known.labels, cell["batch_size"],
                      seed=cell["seed"], channels_last=True, crop="arcface", key=known.key)
    shipped = load_teacher(cell["teacher"])

    def config(what: str) -> TrainConfig:
        return TrainConfig(epochs=epochs[what], batch_size=cell["batch_size"], lr=lr[what],
                           seed=cell["seed"], log_every=50, device="cpu")

    def maker(name: str):
        return lambda: network(cell["networks"][name], shipped)

    configs = {step: config(what) for step, what in (
        ("proxy", "labels"), ("students", "features"),
        ("teacher", "tuned" if row["network"] == "shipped" else "labels")) if what in lr}
    return refo(cache_dir("studies", "refo", "steps"), maker(row["network"]),
                {name: maker(name) for name in [cell["student"]] if name}, batches,
                maker(row["proxy"]) if "proxy" in row else None, config=config("labels"),
                configs=configs, beta1=row.get("beta1"), beta2=row.get("beta2", 5),
                normalize=row.get("normalize", True), head=lambda made, classes:
                head(made, classes, shipped))


def network(kind: dict | str, shipped: Teacher) -> nn.Module:
    if kind == "shipped":
        made = copy.deepcopy(shipped.network).requires_grad_(True)
        made.head[-1].weight.requires_grad_(False)  # fixed at 1, as in training from scratch
        return made
    return IResNet(tuple(kind["units"]), tuple(kind["channels"]), shipped.embedding_size,
                   input_size=SIZE, stem=16, strides=(2, 1, 2, 2, 2))  # ir_student's


def head(made: nn.Module, classes: int, shipped: Teacher) -> ArcFace:
    """ArcFace; for the shipped teacher with the class rows it was trained with."""
    found = ArcFace(shipped.embedding_size, classes)
    if made.channels == shipped.channels:
        found.weight.data.copy_(shipped.centres[:classes])
    return found


def dimensions(network: nn.Module, known: FaceSet, strangers: FaceSet) -> dict:
    """TwoNN on normalised embeddings, one picture a person.

    "strangers": fit, likelihood, the supplement's 20 draws; "training": mean over PICTURES samples
    of one picture of each training person.
    """
    x = embed(network, strangers.pixels("arcface", SIZE))
    fit, mle, draws = (two_nn(x, normalize=True), two_nn(x, "mle", normalize=True),
                       two_nn_repeated(x))
    pixels = known.pixels("arcface", SIZE)
    rows = [np.flatnonzero(known.factors["image"] == j) for j in range(PICTURES)]
    each = [two_nn(embed(network, pixels[own]), normalize=True).dimension for own in rows]
    return {"strangers": fit.dimension, "stderr": fit.stderr, "mle": mle.dimension,
            "repeated": {"mean": draws.mean, "std": draws.std},
            "training": float(np.mean(each)), "training_std": float(np.std(each))}


def summarise(results: list[dict], folder: Path) -> dict:
    """Every row; students' gains by tailored teachers; dimensions; what was chosen."""
    final = {r["cell"]["name"]: r for r in results if r["cell"]["kind"] != "search"}
    tried = {}
    for r in results:
        if r["cell"]["kind"] == "search":
            what, value = r["cell"]["name"].removeprefix("search-").split("-")
            tried.setdefault(what, {})[float(value)] = r["result"]["validation"]
    chosen = {what: max(found, key=found.get) for what, found in tried.items()}
    seeds = sorted({r["cell"]["seed"] for r in final.values()})
    rows = {}  # "refo-small" -> {seed: result}
    for name, r in final.items():
        rows.setdefault(name.rsplit("-seed", 1)[0], {})[r["cell"]["seed"]] = r["result"]
    out = {"seeds": seeds, "world": next(iter(final.values()))["result"]["world"],
           "chosen": chosen, "tried": {w: list(found.values()) for w, found in tried.items()},
           "at_the_edge_of_the_search": [w for w, found in tried.items()
                                         if chosen[w] in (min(found), max(found))],
           "rows": {}, "difference": {}, "dimension": {}}
    for row, runs in rows.items():
        out["rows"][row] = {"parameters": next(iter(runs.values()))["parameters"]} | {
            part: {name: [run[part][name] for run in runs.values()]
                   for name in next(iter(runs.values()))[part]} for part in (*RATES, "dimension")}
    for row, control in compared(rows):
        both = [seed for seed in rows[row] if seed in rows.get(control, {})]
        if both:
            found = compare_draws(folder, *([f"{name}-seed{seed}" for seed in both]
                                            for name in (row, control)))
            out["difference"][f"{row} - {control}"] = found
    for row, control in [*LIGHTER, *TAILORED]:
        both = [seed for seed in rows.get(row, {}) if seed in rows.get(control, {})]
        if len(both) > 1:
            out["dimension"][f"{row} - {control}"] = {
                part: over_seeds([rows[row][seed]["dimension"][part]
                                  - rows[control][seed]["dimension"][part] for seed in both])
                for part in ("strangers", "training")}
    return out


def compared(rows: dict) -> list[tuple[str, str]]:
    """(row, control): tailored against not, ReFO+ against ReFO, weights against the default's row,
    students of untailored teachers against labels."""
    pairs = []
    for row in rows:
        teacher, student, *beta2 = row.split("-")
        if teacher in ("teacher", "labels"):
            continue
        if beta2:
            pairs.append((row, f"{teacher}-{student}"))
        elif teacher in ("vanilla", "scratch"):
            pairs.append((row, f"labels-{student}"))
        else:
            pairs.append((row, f"{'vanilla' if teacher == 'refo' else 'scratch'}-{student}"))
        if teacher in ("scratch_plus", "scratch_beta1_2") and not beta2:
            pairs.append((row, f"scratch_refo-{student}"))
    return [(row, control) for row, control in pairs if control in rows]


def over_seeds(values: list[float]) -> dict:
    """Mean and 95 % interval of Student's t over training seeds; the people are the same."""
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return {"estimate": mean, "low": mean - half, "high": mean + half, "per_seed": values}
