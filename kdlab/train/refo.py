"""ReFO's Algorithm 1: a teacher tailored to a small network, then students that copy it.

Five steps over train(): 1 the student proxy learns by labels; 2 its embeddings are extracted; 3 the
teacher learns by labels and stays near them (eq. 4); 4 its embeddings are extracted; 5 students
copy those, without labels (eq. 5). Without a proxy steps 1 and 2 fall away: a vanilla teacher.

ReFO: the proxy is a network of the student's architecture. ReFO+: it is a lighter one (which one
the paper's public part does not say; a copy of half the width is our proposal). A student other
than the one the teacher was tailored to is one more entry of `students`.

Every step is kept in a folder named by a key of all that defines it, so a second call goes on after
the last finished step, another beta1 finds the same proxy, and nothing is ever overwritten.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from kdlab.cache import digest, file_digest, locked, write_atomic
from kdlab.data.batches import Batches
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.losses import ArcFace, FeatureOnly, ReverseDistillation
from kdlab.results import NAME
from kdlab.teachers import Teacher
from kdlab.train.checkpoint import FREE
from kdlab.train.config import TrainConfig, unknown
from kdlab.train.loop import pick_device, train

FORMAT = 1
STEPS = ("proxy", "teacher", "students")


def arcface(network: nn.Module, num_classes: int) -> ArcFace:
    """The classification loss of steps 1 and 3, with ArcFace's usual scale 64 and margin 0.5."""
    return ArcFace(network.embedding_size, num_classes)


def refo(out: str | Path, teacher: Callable[[], nn.Module], students: dict[str, Callable],
         known: Batches, proxy: Callable[[], nn.Module] | None = None,
         unlabelled: Batches | None = None, *, config: TrainConfig,
         configs: dict[str, TrainConfig] | None = None, beta1: float | None = None,
         beta2: float = 5, normalize: bool = True,
         head: Callable[[nn.Module, int], nn.Module] = arcface) -> dict[str, nn.Module]:
    """Train what is missing of the five steps; "proxy", "teacher" and students' names -> networks.

    teacher, proxy, students' values: functions that make the network to begin with, all of one
    embedding size. known: D1, with labels; unlabelled: D2, whose labels nobody reads; None: D1
    again. Both need a `key`, which names their pictures.   config: of every step, but for those in
    `configs` ("proxy", "teacher", "students"). Fresh weights are drawn from (config.seed, step), so
    a student of the proxy's architecture starts elsewhere than the proxy did.   beta1: None for
    0.5 normalised, 0.001 raw.   head: makes the classification loss of (network, classes).

    All networks come back in eval mode, proxy and teacher frozen. ValueError before anything is
    trained, and what train() raises. Interrupted, it has every finished step on disk, and the
    last checkpoint of the one it was at.
    """
    unlabelled = unlabelled or known
    configs = {step: config for step in STEPS} | (configs or {})
    _check({"teacher": teacher} | ({"proxy": proxy} if proxy else {}), students, known, unlabelled,
           configs)
    made, answers = {}, None
    if proxy is not None:
        folder, made["proxy"] = _trained(
            out, "1_proxy", proxy, lambda network: {"arcface": head(network, known.num_classes)},
            known, configs["proxy"], None)
        answers = _extracted(folder, made["proxy"], known)  # step 2
    folder, made["teacher"] = _trained(
        out, "3_teacher", teacher, lambda network: {
            "arcface": head(network, known.num_classes),
            **({"reverse": ReverseDistillation(beta1, normalize)} if proxy else {})},  # eq. (4)
        known, configs["teacher"], answers)
    if students:
        answers = _extracted(folder, made["teacher"], unlabelled)  # step 4
    for name, student in students.items():
        made[name] = _trained(
            out, f"5_{name}", student,
            lambda network: {"feature_only": FeatureOnly(beta2, normalize)},  # eq. (5)
            unlabelled, configs["students"], answers)[1]
    return made


def _trained(out: str | Path, name: str, make: Callable[[], nn.Module],
             losses: Callable[[nn.Module], dict], batches: Batches, config: TrainConfig,
             answers: EmbeddingCache | None) -> tuple[Path, nn.Module]:
    """The folder and the network of a step: found there, or trained into it now."""
    start = np.random.SeedSequence((config.seed, int(name[0]))).generate_state(1)
    torch.manual_seed(int(start[0]))
    network = make()
    if batches.channels_last:
        network = network.to(memory_format=torch.channels_last)
    losses = losses(network)
    about = {
        "format": FORMAT, "step": name, "network": str(network),
        "start": _fingerprint(nn.ModuleDict({"network": network, **losses})),
        "losses": {key: {"class": type(loss).__name__, **_plain(vars(loss))}
                   for key, loss in losses.items()},
        "config": config.model_dump(mode="json", exclude=FREE),
        "batches": {**_plain(vars(batches)), "rows": len(batches.pixels),
                    "preprocessing": batches.preprocessing},
        "learns_from": answers and answers.identity["teacher"]}
    folder = Path(out) / f"{name}-{digest(about)}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / "step.json").exists():
            train(config.model_copy(update={"out": folder}), network, losses, batches, answers)
            about["student.safetensors"] = file_digest(folder / "student.safetensors")
            write_atomic(folder / "step.json", json.dumps(about, indent=1) + "\n")
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # finished: not needed
        return folder, _read(folder, network).to(pick_device(config.device))


def _read(folder: Path, network: nn.Module) -> nn.Module:
    """The finished step's weights in `network`; ValueError where the file is not what it was."""
    path = folder / "student.safetensors"
    wanted = json.loads((folder / "step.json").read_text())["student.safetensors"]
    if not path.exists() or file_digest(path) != wanted:
        raise ValueError(f"{path} is missing or not the file that step.json beside it names; "
                         f"delete {folder}, and the step is trained again")
    network.load_state_dict(load_file(path))
    return network.eval()


def _extracted(folder: Path, network: nn.Module, batches: Batches) -> EmbeddingCache:
    """Steps 2 and 4: what the frozen network says of every picture and its mirror."""
    contract = {**batches.preprocessing, "embedding_size": network.embedding_size}
    device = next(network.parameters()).device
    frozen = Teacher(network, contract, file_digest(folder / "student.safetensors"),
                     torch.zeros(network.embedding_size)).to(device)
    pictures = FaceSet({batches.crop: batches.pixels.cpu().numpy()}, batches.labels.cpu().numpy(),
                       batches.key)
    return embed_set(frozen, pictures)


def _fingerprint(module: nn.Module) -> str:
    """A hash of all weights: a network that starts trained is another step than a fresh one."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What of an object's settings JSON can hold."""
    return {key: value for key, value in values.items() if key[0] != "_" and key != "training"
            and isinstance(value, bool | int | float | str | None)}


def _check(teachers: dict[str, Callable], students: dict[str, Callable], known: Batches,
           unlabelled: Batches, configs: dict[str, TrainConfig]) -> None:
    """What can be refused before the first step."""
    for where, batches in (("known", known), ("unlabelled", unlabelled)):
        if batches.key is None or batches.crop is None:
            raise ValueError(f"the {where} batches do not say which pictures they hold; make them "
                             "with Batches(..., crop=..., key=faceset.key)")
        if batches.sampler is not None:
            raise ValueError(f"the {where} batches come from a sampler, by which a finished step "
                             "could not be known again; leave the sampler out")
    for step in configs:
        if step not in STEPS:
            raise ValueError(f"configs: {unknown('step', step, STEPS)}")
    for name in students:
        if name in ("proxy", "teacher") or not NAME.fullmatch(name):
            raise ValueError(f"a student cannot be called {name!r}: a step's folder is named so; "
                             "use letters, digits, . _ = + - and not a step's name")
    sizes = {name: make().embedding_size for name, make in (teachers | students).items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"all networks need one embedding size, there is no projection: {told}")
