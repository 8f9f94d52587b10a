"""AdaDistill in miniature: Figure 5's four runs, its margins, and who should be the teacher.

Every row trains one small student on the same batches by one loss: ArcFace alone; ArcDistill,
against the teacher's fixed class rows; AdaDistill, against moving centres, with alpha and with
alpha'. "means" is our control: fixed centres that stand where AdaDistill's should arrive. The
teacher's answers are looked up, so all rows cost the same.

Rates are chosen on validation people, one for each kind of centre; alpha' takes the rate chosen
for alpha, which favours alpha. The two ends of the search and the search for "means" were added
after the rows had been judged once; they moved the rate of "means" and no other, and its three
seeds were trained again. Every seed is judged once, on held-out rendered people, on the same
people in harder pictures, and on the ORL photographs. The result of a row is the paired difference
to another row, bootstrapped over people and seeds. Loss, momentum and validation rate are kept over
the steps; of the first seed also the centres.

The paper's numbers are another world: MS1MV2, 26 epochs, four private tables of centres.
"""

import hashlib
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdlab.cache import cache_dir
from kdlab.data.batches import Batches
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.evaluate.draws import compare_draws, keep_draws, rate_draws
from kdlab.evaluate.pairs import pair_scores, unit_rows
from kdlab.evaluate.verification import eer, embed, tpr_at_fpr
from kdlab.functional import cosine_of_rows
from kdlab.losses import AdaDistill, ArcDistill, ArcFace
from kdlab.models.iresnet import IResNet
from kdlab.results import results_folder
from kdlab.teachers import Teacher, load_teacher
from kdlab.train import TrainConfig, train
from kdlab.train.refo import refo
from kdlab.world import FaceWorld, rendered

MINUTES = 60  # measured, one process on one busy core; two side by side share the cells
SIZE = 48  # the networks' input, pixels
RATES = {"test": (1e-3, 1e-4), "hard": (1e-3,), "orl": (1e-2, 1e-3)}  # FPRs the pairs support
CHOOSE = 1e-3  # the FPR by which validation chooses
SAMPLES = 500  # draws of people
LOG, VALIDATE = 10, 75  # steps from one line of the log, from one validation, to the next
FIRST, EVERY = 5, 15  # centres are kept at each of the first steps, then every so many
COMPARED = [  # row - control
    ("arcdistill", "arcface"), ("alpha", "arcface"), ("alpha_prime", "arcface"),
    ("alpha", "arcdistill"), ("alpha_prime", "arcdistill"), ("alpha_prime", "alpha"),
    ("means", "arcdistill"), ("alpha", "means"), ("alpha_prime", "means"),
    *((f"margin_{m}", "alpha_prime") for m in ("0.40", "0.45")),
    *((f"teacher_{who}", row) for who in ("twin", "wide", "dlib")
      for row in ("alpha_prime", "arcface"))]


def cells(config: dict, done: dict) -> list[dict]:
    """The rates; then the rows of Figure 5, seed by seed; then the rest, row by row."""
    common = {k: config[k] for k in ("world", "student", "batch_size", "threads")}

    def cell(name: str, row: str, seed: int, lr: float, **more) -> dict:
        own = {"margin": config["margin"], "teacher": "ir_teacher", **config["rows"][row]}
        return {**common, "name": name, "row": row, **own, "seed": seed, "lr": lr,
                "epochs": config["epochs"], **more}

    plan, taken = [], {}
    for row in config["search"]:
        tried = {lr: cell(f"search-{row}-{lr}", row, config["search_seed"], lr, kind="search",
                          validation=config["validation"]) | {"epochs": config["search_epochs"]}
                 for lr in config["lr"]}
        plan += tried.values()
        if all(one["name"] in done for one in tried.values()):
            taken[row] = max(tried, key=lambda v, of=tried: done[of[v]["name"]]["validation"])
    if len(taken) < len(config["search"]):
        return plan
    judged = {k: config[k] for k in ("test", "hard")}
    trained = {name: own | {"seed": config["teacher_seed"], "lr": taken["arcface"],
                            "epochs": config["epochs"]} if own else {}
               for name, own in config["teachers"].items()}

    def final(row: str, seed: int) -> dict:
        kind = config["rows"][row]["loss"]
        rate = taken[{"adadistill": "alpha"}.get(kind, kind)]
        found = cell(f"{row}-seed{seed}", row, seed, rate, kind="final",
                     validation=config["validation"], **judged)
        first = row in config["core"] and seed == config["seeds"][0]
        return found | {"teacher_training": trained[found["teacher"]],
                        "watched_classes": config["watched_classes"] if first else 0}

    def look(teacher: str) -> dict:
        return {**common, "name": f"teacher-{teacher}", "kind": "teacher", "teacher": teacher,
                "teacher_training": trained[teacher], **judged}

    plan += [final(row, seed) for seed in config["seeds"] for row in config["core"]]
    met = set()
    for row, options in config["rows"].items():
        teacher = options.get("teacher", "ir_teacher")
        plan += [look(teacher)] * (teacher not in met)
        met.add(teacher)
        plan += [final(row, seed) for seed in config["seeds"] if row not in config["core"]]
    return plan


def run(cell: dict, folder: Path) -> dict:
    torch.set_num_threads(cell["threads"])
    world = FaceWorld(seed=cell["world"]["seed"])
    known = faces(world, cell["world"])
    teacher = teacher_of(cell, known)
    if cell["kind"] == "teacher":
        size = sum(p.numel() for p in teacher.network.parameters())
        return {"world": world.key, "parameters": size, **judge(cell, world, teacher)}
    student, out = teach(cell, known, teacher, faces(world, cell["validation"]))
    out["world"] = world.key
    return out if cell["kind"] == "search" else {**out, **judge(cell, world, student)}


def faces(world: FaceWorld, part: dict) -> FaceSet:
    first = part.get("first", 0)
    return rendered(world, range(first, first + part["identities"]), part["per_identity"])


def judge(cell: dict, world: FaceWorld, network: nn.Module) -> dict:
    """Rates on each set; the draws of a student are kept beside the results."""
    out, draws = {}, {}
    crop, size = "arcface", SIZE
    if isinstance(network, Teacher):
        crop, size = network.contract["crop"], network.contract["size"]
    harder = FaceWorld(seed=cell["world"]["seed"], **cell["hard"])
    for name, seen in (("test", faces(world, cell["test"])), ("hard", faces(harder, cell["test"])),
                       ("orl", load_orl((crop,)))):
        pixels = seen.pixels(crop, size)
        x = answered(network, pixels) if isinstance(network, Teacher) else embed(network, pixels)
        out[name], found = rate_draws(x, seen.labels, RATES[name], SAMPLES)
        draws |= {f"{name} {key}": values for key, values in found.items()}
    keep_draws(results_folder("adadistill"), cell["name"], draws)
    return out


def answered(teacher: Teacher, pixels: torch.Tensor) -> np.ndarray:
    """As `embed`: picture plus mirror, in the teacher's own input."""
    return torch.cat([teacher(x).embedding + teacher(x.flip(3)).embedding
                      for x in pixels.split(64)]).numpy()


def batches_of(cell: dict, known: FaceSet, seed: int) -> Batches:
    return Batches(known.pixels("arcface", SIZE), known.labels, cell["batch_size"], seed=seed,
                   channels_last=True, crop="arcface", key=known.key)


def network(kind: dict, embedding_size: int) -> nn.Module:
    made = IResNet(tuple(kind["units"]), tuple(kind["channels"]), embedding_size, input_size=SIZE,
                   stem=16, strides=(2, 1, 2, 2, 2))  # ir_student's
    return made.to(memory_format=torch.channels_last)


def teacher_of(cell: dict, known: FaceSet) -> Teacher:
    """A shipped teacher, or one trained here by ArcFace; found on disk where another cell did."""
    how = cell.get("teacher_training")
    if not how:
        return load_teacher(cell["teacher"])
    size = load_teacher("ir_teacher").embedding_size
    batches = batches_of(cell, known, how["seed"])
    config = TrainConfig(epochs=how["epochs"], batch_size=cell["batch_size"], lr=how["lr"],
                         seed=how["seed"], log_every=50, device="cpu")
    made = refo(cache_dir("studies", "adadistill", "teachers"),
                lambda: network(how["network"], size), {}, batches, config=config)["teacher"]
    weights = b"".join(v.contiguous().numpy().tobytes() for v in made.state_dict().values())
    contract = {**batches.preprocessing, "embedding_size": size}
    return Teacher(made, contract, hashlib.sha256(weights).hexdigest(), torch.zeros(size))


def loss_of(cell: dict, answers: EmbeddingCache, known: FaceSet, teacher: Teacher) -> nn.Module:
    size, classes, margin = teacher.embedding_size, cell["world"]["identities"], cell["margin"]
    torch.manual_seed(cell["seed"])  # the centres' start does not depend on the student's
    if cell["loss"] == "arcface":
        return ArcFace(size, classes, margin=margin)
    if cell["loss"] == "adadistill":
        return AdaDistill(size, classes, adaptive=cell["adaptive"], margin=margin)
    rows = teacher.centres[:classes] if cell["loss"] == "arcdistill" else \
        torch.from_numpy(class_means(answers, known.labels))
    return ArcDistill(rows, margin=margin)


def class_means(answers: EmbeddingCache, labels: np.ndarray) -> np.ndarray:
    """(C, D) unit rows: the directions of the teacher's class means, mirrors included."""
    units = [unit_rows(answers.array[:, k].astype(np.float32)) for k in (0, 1)]
    sums = np.zeros((labels.max() + 1, units[0].shape[1]), np.float32)
    for rows in units:
        np.add.at(sums, labels, rows)
    return unit_rows(sums)


def teach(cell: dict, known: FaceSet, teacher: Teacher, seen: FaceSet) -> tuple[nn.Module, dict]:
    """The cell's student after training, and what to record of it."""
    answers = embed_set(teacher, known)
    loss = loss_of(cell, answers, known, teacher)
    torch.manual_seed(cell["seed"])
    student = network(cell["student"], teacher.embedding_size)
    batches = batches_of(cell, known, cell["seed"])
    config = TrainConfig(epochs=cell["epochs"], batch_size=batches.batch_size, lr=cell["lr"],
                         seed=cell["seed"], log_every=LOG, device="cpu")
    means = class_means(answers, known.labels)
    watched, finish = watch(cell, student, loss, seen, torch.from_numpy(means))
    columns = train(config, student, {"loss": loss}, batches, answers).columns
    out = {"teacher": teacher.hash, "parameters": sum(p.numel() for p in student.parameters()),
           "images_per_second": float(np.median(columns["images_per_second"])), **finish()}
    if cell["kind"] == "final":
        out["log"] = {name: rounded(columns[name]) for name in
                      ("step", "loss", "loss.momentum", "loss.centre_drift_degrees")
                      if name in columns}
        out["watched"] = {name: rounded(values) for name, values in watched.items()}
    return student, out


def rounded(values) -> list[float]:
    return np.round(np.asarray(values, float), 4).tolist()


def watch(cell: dict, student: nn.Module, loss: nn.Module, seen: FaceSet, means: torch.Tensor):
    """(lists filled while the loss trains, a function that gives what is known at the end).

    "agreement": mean cosine of student and teacher; "nearness": of the old centre and the teacher;
    "validated", "tpr", "eer": steps done and the validation people's rates; "to_mean": cosine of
    each centre and its class mean, 10, 50 and 90 % of the classes.
    """
    found = {name: [] for name in ("step", "agreement", "nearness", "validated", "tpr", "eer",
                                   "to_mean")}
    kept, steps, number = [], count(), cell.get("watched_classes", 0)
    pixels, moving = seen.pixels("arcface", SIZE), isinstance(loss, AdaDistill)

    def validate(done: int) -> None:
        scores = pair_scores(embed(student, pixels), seen.labels)
        for name, value in (("validated", done), ("tpr", tpr_at_fpr(*scores, CHOOSE).tpr),
                            ("eer", eer(*scores))):
            found[name].append(value)

    @torch.no_grad()
    def keep(done: int) -> None:
        near = cosine_of_rows(loss.centres, means)
        kept.append((done, loss.centres[:number].clone(), loss.centres.norm(dim=1), near))

    @torch.no_grad()
    def before(module: nn.Module, inputs: tuple) -> None:
        done = next(steps)
        if done % VALIDATE == 0 and cell["kind"] == "final":
            validate(done)
        if number and moving and (done < FIRST or done % EVERY == 0):
            keep(done)
        if done % LOG == 0 and hasattr(loss, "centres"):
            (mine, theirs, targets), centres = inputs, loss.centres
            found["step"].append(done + 1)  # as the log counts
            goal = theirs.embedding
            found["agreement"].append(float(cosine_of_rows(mine.embedding, goal).mean()))
            old = centres[targets.labels]
            found["nearness"].append(float(cosine_of_rows(old, goal).mean()))
            near = cosine_of_rows(centres, means).quantile(torch.tensor([0.1, 0.5, 0.9]))
            found["to_mean"].append(near.tolist())

    def finish() -> dict:
        validate(done := next(steps))
        if number and moving:
            keep(done)
            folder = results_folder("adadistill") / "centres"
            folder.mkdir(parents=True, exist_ok=True)
            names = ("step", "centres", "norm", "to_mean")
            arrays = {name: np.stack([np.asarray(part) for part in parts]) for name, parts in
                      zip(names, zip(*kept, strict=True), strict=True)}
            halves = {name: values.astype(np.float16) if values.dtype == np.float32 else values
                      for name, values in arrays.items()}
            np.savez_compressed(folder / f"{cell['name']}.npz", **halves)
        return {"validation": found["tpr"][-1]}

    loss.register_forward_pre_hook(before)
    return found, finish


def summarise(results: list[dict], folder: Path) -> dict:
    """Each row's rates, the paired differences, the teachers, and what was chosen."""
    tried, rows, teachers = {}, {}, {}
    for r in results:
        cell, result = r["cell"], r["result"]
        if cell["kind"] == "search":
            tried.setdefault(cell["row"], {})[cell["lr"]] = result["validation"]
        elif cell["kind"] == "teacher":
            teachers[cell["teacher"]] = {k: result[k] for k in ("parameters", *RATES)}
        else:
            rows.setdefault(cell["row"], {})[cell["seed"]] = result
    chosen = {row: max(found, key=found.get) for row, found in tried.items()}
    out = {"seeds": sorted(next(iter(rows.values()))), "chosen": chosen,
           "world": results[0]["result"]["world"],
           "tried": {row: {str(lr): v for lr, v in found.items()} for row, found in tried.items()},
           "at_the_edge_of_the_search": [row for row, found in tried.items()
                                         if chosen[row] in (min(found), max(found))],
           "teachers": teachers, "rows": {}, "difference": {}}
    for row, runs in rows.items():
        out["rows"][row] = {part: {name: [run[part][name] for run in runs.values()]
                                   for name in next(iter(runs.values()))[part]} for part in RATES}
    for row, control in COMPARED:
        both = [seed for seed in rows.get(row, {}) if seed in rows.get(control, {})]
        if both:
            out["difference"][f"{row} - {control}"] = compare_draws(
                folder, *([f"{name}-seed{seed}" for seed in both] for name in (row, control)))
    return out
