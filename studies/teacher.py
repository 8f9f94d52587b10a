"""The rendered-face teacher: is a wider network, trained the same way, worth learning from?

`ir_teacher` and `ir_student` learn the same rendered identities by ArcFace: same pictures, flips,
epochs, batch and learning rate, the rate chosen on validation identities for the student alone (so
a doubt about it counts against the teacher). Every network is judged on every protocol of the
world and on the ORL photographs, and dlib's beside them. The teacher's lead is bootstrapped over
the people of one protocol and the students' seeds. What is judged is what is stored: weights and
classifier rows in float16, the teacher's as data/teachers/ir_teacher.safetensors.

The protocols are checked too, by dlib's network, which never saw a rendered face: are those that
should be harder harder for it?
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import kdlab
from kdlab.cache import cache_dir, digest
from kdlab.claims import verdict
from kdlab.data.batches import Batches
from kdlab.data.embeddings import embed_set
from kdlab.data.orl import load_orl
from kdlab.evaluate.identification import judge
from kdlab.evaluate.intervals import eer_of_draws, paired_difference, people_counts
from kdlab.evaluate.pairs import unit_rows
from kdlab.evaluate.verification import embed
from kdlab.losses import LOSSES
from kdlab.models import MODELS
from kdlab.results import results_folder
from kdlab.teachers import STUDENT_SCALE, load_teacher, save_teacher
from kdlab.train import TrainConfig, train
from kdlab.world import FaceWorld, rendered
from kdlab.world.protocols import PROTOCOLS, protocol

MINUTES = 80  # measured, two processes side by side
SIZE = 48  # pixels, the input of both networks
CROPS = ("arcface", "dlib")  # of a protocol: both, so that all networks share one rendered set
COMPARED, RATE, LEAST = "profile", 1e-3, 0.10  # worth learning from: 10 points of TPR at FPR 1e-3
ORDER = (("frontal", "age"), ("frontal", "pose"), ("age", "profile"), ("age", "masked"),
         ("pose", "profile"), ("pose", "masked"))  # easier, harder: by equal error rate
KEEP = 300_000  # bytes of embeddings, the most that a file of the repository should add
SAMPLES = 1000  # draws of people
LEVELS = (0.025, 0.975)  # of the 95 % intervals


def cells(config: dict, done: dict) -> list[dict]:
    """The search, then training, then judging; what needs no training of ours at any time."""
    common = {k: config[k] for k in ("world", "embedding_size", "batch_size", "threads")}
    search = [{**common, "name": f"search-lr{lr}", "kind": "search", "network": config["student"],
               "lr": lr, "epochs": config["search_epochs"], "seed": config["search_seed"],
               "validation": config["validation"]} for lr in config["lr"]]
    trained = []
    if all(cell["name"] in done for cell in search):
        lr = max(config["lr"], key=lambda lr: done[f"search-lr{lr}"]["validation"]["tpr"]["0.001"])
        runs = [(config["teacher"], config["teacher_seed"]),
                *((config["student"], seed) for seed in config["student_seeds"])]
        trained = [{**common, "name": f"{network}-seed{seed}", "kind": "train", "lr": lr,
                    "network": network, "epochs": config["epochs"], "seed": seed,
                    "ship": network == config["teacher"]} for network, seed in runs]
    # A protocol that changes is judged again; so is a network that is trained again.
    tests = {"world": config["world"], "people": config["people"], "threads": config["threads"],
             "protocols": {name: digest(PROTOCOLS.get(name)) for name in config["protocols"]}}
    judged = [{**tests, "name": f"judge-{cell['name']}", "kind": "judge", "network": cell["name"],
               "trained": done[cell["name"]]["hash"], "ship": cell["ship"]}
              for cell in trained if cell["name"] in done]
    lead = []
    if len(judged) == len(trained) > 0:
        teacher, *students = judged
        lead = [{"name": "lead", "kind": "lead", "world": config["world"],
                 "threads": config["threads"], "people": config["compared_people"],
                 **{who: {cell["network"]: cell["trained"] for cell in those}
                    for who, those in (("teacher", [teacher]), ("students", students))}}]
    beside = [{**tests, "name": f"judge-{Path(config['beside']).stem}", "kind": "judge",
               "network": config["beside"], "trained": None},
              {**tests, "name": "order", "kind": "order", "network": config["beside"]}]
    return search + trained + judged + lead + beside


def run(cell: dict, folder: Path) -> dict:
    torch.set_num_threads(cell["threads"])
    world = FaceWorld(cell["world"]["seed"], **cell["world"].get("nuisance", {}))
    kinds = {"search": search, "train": teach, "judge": judged, "order": in_order, "lead": lead}
    return {"world": world.key, **kinds[cell["kind"]](cell, folder, world)}


def search(cell: dict, folder: Path, world: FaceWorld) -> dict:
    student, _, record = learn(cell, folder, world)
    part = cell["validation"]
    who = range(part["first"], part["first"] + part["identities"])
    seen = rendered(world, who, part["per_identity"], ("arcface",))
    rows = np.arange(len(seen))
    found = judge(embed(student, seen.pixels("arcface", SIZE)), seen.labels, rows, rows)
    return {**record, "validation": found}


def teach(cell: dict, folder: Path, world: FaceWorld) -> dict:
    """Train and store: the teacher in data/teachers, a student in the cache."""
    network, loss, record = learn(cell, folder, world)
    path = weights(cell["name"], cell["ship"])
    save_teacher(path, network, contract(cell, world), centres=loss.weight.detach())
    return {**record, "hash": load_teacher(path).hash, "bytes": path.stat().st_size,
            "parameters": sum(p.numel() for p in network.parameters())}


def weights(name: str, shipped: bool) -> Path:
    if shipped:
        return kdlab.home() / "data" / "teachers" / f"{name.split('-seed')[0]}.safetensors"
    return cache_dir("studies", "teacher", name) / "network.safetensors"


def contract(cell: dict, world: FaceWorld) -> dict:
    """What the file says of the network.

    No mean is subtracted: the classifier rows belong to the embedding as it comes. How far it is
    from lying about the origin, the judged records say ("mean_cosine").
    """
    mean, divide = STUDENT_SCALE
    D = cell["embedding_size"]
    recipe = {k: cell[k] for k in ("lr", "epochs", "batch_size", "seed")}
    return {"network": cell["network"], "arguments": {"embedding_size": D}, "crop": "arcface",
            "size": SIZE, "channels": "RGB", "mean": mean, "divide": divide, "embedding_size": D,
            "origin": "kdlab study teacher, rendered faces only", "licence": "MIT",
            "trained_on": {"world": world.key, **cell["world"]},
            "recipe": {"loss": "ArcFace", **recipe}}


def learn(cell: dict, folder: Path, world: FaceWorld) -> tuple[nn.Module, nn.Module, dict]:
    """The cell's network after training; its loss, whose row k is identity k; what to record."""
    part, D = cell["world"], cell["embedding_size"]
    known = rendered(world, range(part["identities"]), part["per_identity"], ("arcface",))
    torch.manual_seed(cell["seed"])
    network = MODELS[cell["network"]](embedding_size=D).to(memory_format=torch.channels_last)
    loss = LOSSES["ArcFace"](D, part["identities"])
    batches = Batches(known.pixels("arcface", SIZE), known.labels, cell["batch_size"],
                      seed=cell["seed"], channels_last=True, crop="arcface", key=known.key)
    config = TrainConfig(epochs=cell["epochs"], batch_size=cell["batch_size"], lr=cell["lr"],
                         seed=cell["seed"], log_every=20, device="cpu", out=folder)
    columns = train(config, network, {"arcface": loss}, batches).columns
    return network, loss, {"loss": float(columns["loss"][-1]),
                           "images_per_second": float(np.median(columns["images_per_second"]))}


def judged(cell: dict, folder: Path, world: FaceWorld) -> dict:
    """Every protocol by one network; embeddings that are small are kept."""
    ours = cell["trained"] is not None
    network = (as_trained(cell["network"], cell["ship"], cell["trained"]) if ours
               else load_teacher(cell["network"]))
    found = {}
    place = results_folder("teacher") / "embeddings"
    place.mkdir(parents=True, exist_ok=True)
    for name in cell["protocols"]:
        embedding, arrays = answers(network, name, cell)
        x = embedding.astype(np.float32)
        found[name] = judge(x, **arrays) | {"mean_cosine": mean_cosine(x)}
        if embedding.nbytes <= KEEP:
            rows = {k: arrays[k].astype(np.int32) for k in ("labels", "a", "b")}
            np.savez(place / f"{cell['name'].removeprefix('judge-')}-{name}.npz",
                     embedding=embedding, **rows)
    return {"hash": network.hash, "protocols": found}


def as_trained(name: str, shipped: bool, known: str) -> nn.Module:
    """The network a cell trained; ValueError where its file is another or gone."""
    path = weights(name, shipped)
    if not (path.exists() and load_teacher(path).hash == known):
        record = results_folder("teacher") / "cells" / f"{name}.json"
        raise ValueError(f"{path} is not there or not what was trained; delete {record} and run "
                         "`kdlab study teacher` to train it again")
    return load_teacher(path)


def answers(network: nn.Module, name: str, cell: dict) -> tuple[np.ndarray, dict]:
    """(N, D) float16, picture plus mirror, and who meets whom: the other arguments of `judge`."""
    if name == "orl":
        faces = load_orl(CROPS)
        rows = np.arange(len(faces))
        arrays = {"labels": faces.labels, "a": rows, "b": rows}
    else:
        found = protocol(name, cell["world"]["seed"], CROPS, cell["people"])
        faces, arrays = found.faces, found.arrays()
    return as_stored(embed_set(network, faces)), arrays


def as_stored(both) -> np.ndarray:
    """Picture plus mirror, (N, D) float16: whoever reads a file finds the same numbers."""
    return both.array.sum(1).astype(np.float16)


def mean_cosine(embedding: np.ndarray) -> float:
    """Mean cosine over all pairs, nearly all of strangers: 0 about the origin, 1 in one ray."""
    x = unit_rows(embedding).astype(np.float64)
    N = len(x)
    return float((np.square(x.sum(0)).sum() - N) / (N * (N - 1)))


def in_order(cell: dict, folder: Path, world: FaceWorld) -> dict:
    """Equal error rate of the harder protocol minus that of the easier, over people."""
    network, draws = load_teacher(cell["network"]), {}
    pairs = [pair for pair in ORDER if set(pair) <= set(cell["protocols"])]
    for k, name in enumerate(sorted({name for pair in pairs for name in pair})):
        embedding, who = answers(network, name, cell)
        # Other people in each protocol, so other draws.
        counts = drawn(who["labels"], np.random.default_rng(k))
        draws[name] = eer_of_draws(embedding, who["labels"], counts, who["a"], who["b"])
    return {"order": [{"easier": easier, "harder": harder, **summed(draws[harder] - draws[easier])}
                      for easier, harder in pairs]}


def drawn(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(1 + SAMPLES, P): how often each person is drawn; first, everybody once."""
    counts = people_counts(labels, SAMPLES, random)
    return np.concatenate([np.ones_like(counts[:1]), counts])


def summed(draws: np.ndarray) -> dict[str, float]:
    """(1 + SAMPLES,) -> the estimate, which comes first, and its percentile interval."""
    low, high = np.quantile(draws[1:], LEVELS)
    return {"estimate": float(draws[0]), "low": float(low), "high": float(high)}


def lead(cell: dict, folder: Path, world: FaceWorld) -> dict:
    """TPR of the teacher minus TPR of the students, over people and the students' seeds.

    On more people than the table's, because their spread is what hides a lead.
    """
    tested = protocol(COMPARED, cell["world"]["seed"], ("arcface",), cell["people"])
    embeddings = [as_stored(embed_set(as_trained(name, shipped, known), tested.faces))
                  for shipped, who in ((True, "teacher"), (False, "students"))
                  for name, known in cell[who].items()]
    teacher, *students = embeddings
    found = paired_difference([teacher] * len(students), students, tested.faces.labels, RATE,
                              SAMPLES, a=tested.a, b=tested.b)
    return {"protocol": COMPARED, "people": cell["people"], "fpr": RATE, "threshold": LEAST,
            **found._asdict()}


def summarise(results: list[dict], folder: Path) -> dict:
    """Every network on every protocol, the teacher's lead, and the order of the protocols."""
    worlds = {r["result"]["world"] for r in results}
    if len(worlds) > 1:
        raise ValueError(f"cells were run in {len(worlds)} versions of the face world; delete "
                         f"{folder / 'cells'} and run `kdlab study teacher` again")
    trained = {r["cell"]["name"]: r for r in results if r["cell"]["kind"] == "train"}
    tried = [r["cell"]["lr"] for r in results if r["cell"]["kind"] == "search"]
    teacher = next(iter(trained))
    cell, record = trained[teacher]["cell"], trained[teacher]["result"]
    networks = {}  # "ir_student" -> one dict of protocols a seed
    for r in results:
        if r["cell"]["kind"] == "judge":
            label = r["cell"]["name"].removeprefix("judge-").split("-seed")[0]
            networks.setdefault(label, []).append(r["result"]["protocols"])
    table = next(iter(networks.values()))[0]
    worth = next(r["result"] for r in results if r["cell"]["kind"] == "lead")
    worth = {k: v for k, v in worth.items() if k != "world"}
    worth["verdict"] = verdict(worth["estimate"], (worth["low"], worth["high"]), "greater",
                               LEAST)[0]
    rows = next(r["result"]["order"] for r in results if r["cell"]["kind"] == "order")
    return {"world": worlds.pop(), "lr": cell["lr"],
            "lr_at_the_edge_of_the_search": cell["lr"] in (min(tried), max(tried)),
            "student_seeds": [r["cell"]["seed"] for name, r in trained.items() if name != teacher],
            "teacher": {**record, "cell": cell},
            "protocols": {name: {"genuine": found["genuine"], "impostor": found["impostor"],
                                 "fprs": [float(fpr) for fpr in found["tpr"]]}
                          for name, found in table.items()},
            "networks": {label: {name: spread([seen[name] for seen in runs]) for name in table}
                         for label, runs in networks.items()},
            "worth_learning_from": worth,
            "order": [row | {"verdict": verdict(row["estimate"], (row["low"], row["high"]))[0]}
                      for row in rows]}


def spread(found: list[dict]) -> dict:
    """One protocol judged once a seed: each number's mean, and its values."""
    flat = [{k: f[k] for k in ("eer", "rank1", "mean_cosine")}
            | {f"tpr@{fpr}": value for fpr, value in f["tpr"].items()} for f in found]
    return {name: {"mean": float(np.mean([f[name] for f in flat])),
                   "values": [f[name] for f in flat]} for name in flat[0]}
