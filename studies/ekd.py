"""EKD's ablations in miniature: which of its choices matter, and what a step costs.

Every row trains one student on the same batches (64 random rows, 16 identities x 4), by ArcFace on
the random rows and EKD on all; a row changes one thing. In the rows "alone" EKD's weights are 0: it
watches. So a row and its control differ in the loss and in nothing else, and critical relations and
thresholds are known for both. Learning rate and weights are chosen on validation identities; every
seed is judged once, on held-out rendered people and on the ORL photographs. The result of a row is
the paired difference to its control, bootstrapped over people and seeds.

The paper's numbers (Tables 1 and 5) are another world: MS1MV2, 28 epochs, 16 GPUs.
"""

import copy
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from kdlab.data.batches import DIVIDE, MEAN, Batches
from kdlab.data.embeddings import embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.data.samplers import PairSampler
from kdlab.evaluate.draws import compare_draws, keep_draws, rate_draws
from kdlab.evaluate.pairs import pair_scores, unit_rows
from kdlab.evaluate.verification import embed, tpr_at_fpr
from kdlab.losses import EKD, RKD, ArcFace
from kdlab.losses.ekd import fpr_thresholds
from kdlab.models import MODELS
from kdlab.models.iresnet import IResNet
from kdlab.outputs import Output, Targets
from kdlab.results import results_folder
from kdlab.teachers import load_teacher
from kdlab.train import TrainConfig, train
from kdlab.world import FaceWorld, rendered

MINUTES = 80  # 150 s a cell, two processes side by side on two quiet cores
SIZE = 48  # the students' input, pixels
RATES = {"test": (1e-3, 1e-4), "orl": (1e-2, 1e-3)}  # FPRs that the pairs of each set support
CHOOSE = 1e-3  # the FPR by which validation chooses
WEIGHTS = (0.02, 0.01)  # positive and negative, paper section 4
SAMPLES = 500  # draws of people
LOG, WATCH = 5, 25  # steps from one line of the log, from one true threshold, to the next
ROUNDS = 30  # timed steps of each kind
CONTROLS = {"smaller_alone": "smaller_alone", "smaller_ekd": "smaller_alone",
            "ekd_all_rows": "alone_all_rows"}  # else "alone"
CHOICES = ("alone_all_rows", "tau_0.1", "tau_0.001", "hard_N_125", "hard_N_625", "random_N_250",
           "K_2", "equation_7", "paper", "slow", "corrected")  # rows also compared with EKD's own


def cells(config: dict, done: dict) -> list[dict]:
    """The rate, then the factor on the weights, then the rows; the costs at any time."""
    common = {k: config[k] for k in ("world", "teacher", "embedding_size", "epochs", "random",
                                     "identities", "per_identity", "threads")}

    def cell(name: str, seed: int, options: dict, **more) -> dict:
        own = {k: v for k, v in options.items() if k not in ("factor", "arcface", "network")}
        return {**common, "name": name, "seed": seed,
                "network": config["networks"][options.get("network", "ir_student")],
                "arcface": options.get("arcface", "random"), "ekd": config["base"] | own, **more}

    seed, known = config["search_seed"], {"kind": "search", "validation": config["validation"]}
    costs = [cell("cost", seed, {}, kind="cost")]
    rates = {lr: cell(f"search-lr{lr}", seed, {}, lr=lr, factor=0, **known) for lr in config["lr"]}
    lr = chosen(rates, done)
    if lr is None:
        return costs + list(rates.values())
    factors = {f: cell(f"search-factor{f}", seed, {}, lr=lr, factor=f, **known)
               for f in config["factor"]}
    search, factor = [*rates.values(), *factors.values()], chosen(factors, done)
    if factor is None:
        return costs + search
    return costs + search + [
        cell(f"{row}-seed{seed}", seed, options, kind="final", row=row, lr=lr,
             factor=options.get("factor", factor), test=config["test"],
             watched=row in config["watched"] and seed == config["seeds"][0])
        for seed in config["seeds"] for row, options in config["rows"].items()]


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
    if cell["kind"] == "cost":
        return {"world": world.key, "costs": costs(cell, faces(world, cell["world"]))}
    student, out = teach(cell, faces(world, cell["world"]))
    out["world"] = world.key
    if cell["kind"] == "search":
        seen = faces(world, cell["validation"])
        scores = pair_scores(embed(student, seen.pixels("arcface", SIZE)), seen.labels)
        return {**out, "validation": tpr_at_fpr(*scores, CHOOSE).tpr}
    draws = {}
    for name, seen in (("test", faces(world, cell["test"])), ("orl", load_orl(("arcface",)))):
        x = embed(student, seen.pixels("arcface", SIZE))
        out[name], found = rate_draws(x, seen.labels, RATES[name], SAMPLES)
        draws |= {f"{name} {key}": values for key, values in found.items()}
    keep_draws(results_folder("ekd"), cell["name"], draws)
    return out


def network(cell: dict) -> nn.Module:
    torch.manual_seed(cell["seed"])
    kind, D = cell["network"], cell["embedding_size"]
    if isinstance(kind, str):
        made = MODELS[kind](embedding_size=D)
    else:  # strides and stem of ir_student
        made = IResNet(tuple(kind["units"]), tuple(kind["channels"]), D, input_size=SIZE, stem=16,
                       strides=(2, 1, 2, 2, 2))
    return made.to(memory_format=torch.channels_last)


def losses(cell: dict) -> dict[str, nn.Module]:
    positive, negative = (cell["factor"] * weight for weight in WEIGHTS)
    return {"arcface": ArcFace(cell["embedding_size"], cell["world"]["identities"]),
            "ekd": EKD(**cell["ekd"], positive_weight=positive, negative_weight=negative)}


def teach(cell: dict, known: FaceSet) -> tuple[nn.Module, dict]:
    """The cell's student after training, and what to record of it."""
    student, teacher, own = network(cell), load_teacher(cell["teacher"]), losses(cell)
    sampler = PairSampler(known.labels, cell["random"], cell["identities"], cell["per_identity"],
                          seed=cell["seed"])
    batches = Batches(known.pixels("arcface", SIZE), known.labels, seed=cell["seed"],
                      channels_last=True, crop="arcface", key=known.key, sampler=sampler)
    if cell["arcface"] == "all":
        own["arcface"].register_forward_pre_hook(all_rows)
    config = TrainConfig(epochs=cell["epochs"], batch_size=batches.batch_size, lr=cell["lr"],
                         seed=cell["seed"], log_every=LOG, device="cpu")
    fprs, answers = cell["ekd"]["fprs"], embed_set(teacher, known)
    true = truth(student, known, fprs, batches.batch_size) if cell.get("watched") else None
    columns = train(config, student, own, batches, answers).columns
    out = {"teacher": teacher.hash, "parameters": sum(p.numel() for p in student.parameters()),
           "images_per_second": float(np.median(columns["images_per_second"]))}
    for term in ("arcface/softmax", "ekd/positive", "ekd/negative"):
        if term in columns:
            out[term] = float(columns[term][-1])
    if true is not None:
        out["timeline"] = {name: np.round(np.asarray(values, float), 4).tolist()
                           for name, values in columns.items()
                           if name == "step" or name.startswith("ekd.")}
        theirs = thresholds(answers.array[one_each(known), 0], fprs)
        out["true_thresholds"] = {"every": WATCH, "student": true, "teacher": theirs}
    return student, out


def all_rows(loss: nn.Module, inputs: tuple) -> tuple:
    """A hook by which ArcFace no longer knows which rows were drawn as pairs."""
    student, teacher, targets = inputs
    return student, teacher, targets._replace(balanced=None)


def truth(student: nn.Module, known: FaceSet, fprs: list[float], size: int) -> list[list[float]]:
    """Filled while `student` trains: every WATCH steps its thresholds over all impostors, (T, K).

    One picture of each identity, so that every pair is an impostor; 500 people make 124,750. A copy
    sees them in training mode, `size` at a time: batch norm by the batch is what EKD sees too.
    """
    pictures, steps, found = known.pixels("arcface", SIZE)[one_each(known)], count(), []

    @torch.no_grad()
    def hook(module: nn.Module, inputs: tuple, output: Output) -> None:
        if module.training and next(steps) % WATCH == 0:
            twin = copy.deepcopy(module)  # its running averages may move
            x = [twin.forward(scaled(part)).embedding for part in pictures.split(size)]
            found.append(thresholds(torch.cat(x).numpy(), fprs))

    student.register_forward_hook(hook)
    return found


def one_each(known: FaceSet) -> np.ndarray:
    return np.unique(known.labels, return_index=True)[1]


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float() - MEAN) / DIVIDE).contiguous(memory_format=torch.channels_last)


def thresholds(x: np.ndarray, fprs: list[float]) -> list[float]:
    unit = unit_rows(x)
    scores = np.sort((unit @ unit.T)[np.triu_indices(len(unit), 1)])[::-1]
    found = fpr_thresholds(torch.from_numpy(scores.copy()), len(scores), fprs)
    return [round(float(t), 4) for t in found]


def costs(cell: dict, known: FaceSet) -> dict:
    """Seconds of a step, all kinds in turn, so that a busy machine is busy for all (Table 5).

    64 rows without a teacher are the paper's baseline; "cached": the teacher's answers are looked
    up; "live": it computes them in the step, as the paper's did. "ratio": to the baseline of the
    same round, median and quartiles.
    """
    half, rows = cell["random"], cell["random"] + cell["identities"] * cell["per_identity"]
    D, classes = cell["embedding_size"], cell["world"]["identities"]
    student, teacher = network(cell).train(), load_teacher(cell["teacher"])
    arcface, ekd, rkd = ArcFace(D, classes), EKD(**cell["ekd"]), RKD()
    optimizer = torch.optim.SGD([*student.parameters(), *arcface.parameters()], 1e-3, 0.9)
    sampler = PairSampler(known.labels, half, cell["identities"], cell["per_identity"])
    index, balanced = next(sampler.epoch(0))
    x, labels = scaled(known.pixels("arcface", SIZE)[index]), torch.as_tensor(known.labels)[index]
    cached = teacher(x)

    def step(number: int, loss: nn.Module | None, live: bool, balance: bool = True) -> float:
        begun = perf_counter()
        with torch.no_grad():
            goal = teacher(x[:number]) if live else cached
        targets = Targets(labels[:number], balanced=balanced[:number] if balance else None)
        output = student(x[:number])
        terms = dict(arcface(output, None, targets))
        if loss is not None:
            terms |= loss(output, goal, targets)
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
        return perf_counter() - begun

    kinds = {"baseline": (half, None, False, False), "as many pictures": (rows, None, False, False),
             "EKD, cached": (rows, ekd, False), "EKD, live": (rows, ekd, True),
             "RKD, cached": (rows, rkd, False), "RKD, live": (rows, rkd, True)}
    seconds = np.array([[step(*kind) for kind in kinds.values()] for _ in range(ROUNDS + 3)])[3:]
    return {kind: {"seconds": float(np.median(took)),
                   "ratio": np.quantile(took / seconds[:, 0], (0.5, 0.25, 0.75)).tolist()}
            for kind, took in zip(kinds, seconds.T, strict=True)}


def summarise(results: list[dict], folder: Path) -> dict:
    """Each row's means, its paired difference to its control, and what was chosen."""
    final = [r for r in results if r["cell"]["kind"] == "final"]
    tried = {kind: [r["cell"][kind] for r in results if f"search-{kind}" in r["cell"]["name"]]
             for kind in ("lr", "factor")}
    taken = {"lr": final[0]["cell"]["lr"],
             "factor": next(r["cell"]["factor"] for r in final if r["cell"]["factor"])}
    seeds = sorted({r["cell"]["seed"] for r in final})
    rows = {}
    for r in final:
        rows.setdefault(r["cell"]["row"], {})[r["cell"]["seed"]] = r["result"]
    out = {"seeds": seeds, "world": final[0]["result"]["world"], **taken,
           "at_the_edge_of_the_search": [k for k in tried if taken[k] in
                                         (min(tried[k]), max(tried[k]))],
           "cost": next(r["result"]["costs"] for r in results if r["cell"]["kind"] == "cost"),
           "rows": {}, "difference": {}, "difference_to_ekd": {}}
    for row, runs in rows.items():
        out["rows"][row] = {part: {name: [run[part][name] for run in runs.values()]
                                   for name in next(iter(runs.values()))[part]} for part in RATES}
        control = CONTROLS.get(row, "alone")
        compared = [("difference", control)] + [("difference_to_ekd", "ekd")] * (row in CHOICES)
        for kind, other in compared:
            both = [seed for seed in runs if seed in rows.get(other, {})]
            if row != other and both:
                out[kind][row] = against(folder, row, other, both)
    return out


def against(folder: Path, row: str, control: str, seeds: list[int]) -> dict:
    """TPR of a row minus TPR of its control, each set and rate."""
    found = compare_draws(folder, *([f"{name}-seed{seed}" for seed in seeds]
                                    for name in (row, control)))
    return {key: {"control": control, **d} for key, d in found.items()}
