"""The runs of the GPU miniature: networks, losses and pictures, each run in a folder of its own."""

import os
import threading
import time
from pathlib import Path

import torch
from alternate import Steps
from miniature_faces import faces
from safetensors.torch import load_file
from torch import nn

from kdlab.cache import file_digest
from kdlab.data import Batches, EmbeddingCache, FaceSet, PairSampler, embed_set
from kdlab.losses import EKD, AdaDistill, ArcFace, FeatureOnly, ShrinkTeaNet
from kdlab.models import MODELS
from kdlab.outputs import Output
from kdlab.teachers import Teacher
from kdlab.train import History, TrainConfig, train

D = 512  # dimensions of embeddings
LOSSES = {  # method -> learning rate at batch 512, and its losses for so many classes
    "ArcFace": (0.1, lambda C: {"arcface": ArcFace(D, C)}),
    "EKD": (0.1, lambda C: {"arcface": ArcFace(D, C),
                            "kd": EKD(positive_weight=0.32, negative_weight=0.16)}),
    "AdaDistill": (1.6, lambda C: {"kd": AdaDistill(D, C)}),
    "ShrinkTeaNet": (0.1, lambda C: {"arcface": ArcFace(D, C), "kd": ShrinkTeaNet((), (), None)}),
    "FeatureOnly": (6.0, lambda C: {"kd": FeatureOnly()})}
WARM = 5  # steps of a probe that are not counted


class Late(Exception):
    """The minutes are over; what was done is kept."""


class Runs:
    """What is trained over the faces in `work`, until time.monotonic() is `until`.

    sizes: one of gpu_miniature.SIZES.
    """

    def __init__(self, sizes: dict, work: Path, until: float):
        self.sizes, self.work, self.until, self.pixels = sizes, work, until, None
        self.device = sizes["device"]

    def run(self, name: str, role: str, method: str, steps: int, seed: int = 0,
            teacher: EmbeddingCache | None = None) -> dict[str, float]:
        """One run of train() in work/name, gone on with where it is there; its last numbers.

        Late where time ends first, with a checkpoint.
        """
        out, network = self.work / name, self.network(role, seed)
        config = self.config(LOSSES[method][0], seed, out=out, keep=1, log_every=20,
                             checkpoint_every=max(steps // 4, 1))
        timer = threading.Timer(max(self.until - time.monotonic(), 0), stop, [out])
        timer.start()
        try:
            history = self._train(config, network, method, steps, teacher)[0]
        except KeyboardInterrupt as error:
            if time.monotonic() < self.until:  # a person's
                raise
            raise Late from error
        finally:
            timer.cancel()
        row = history.rows[-1]
        return {"parameters": sum(p.numel() for p in network.parameters())} | {
            key: row[key] for key in ("loss", "images_per_second", "memory_mb")}

    def seconds(self, role: str, method: str, teacher: EmbeddingCache | None = None) -> float:
        """Seconds of a step, measured over a few."""
        return self._train(self.config(1e-3, 0), self.network(role, 0), method,
                           WARM + self.sizes["probe"], teacher)[1].seconds(WARM)[0]

    def _train(self, config: TrainConfig, network: nn.Module, method: str, steps: int,
               teacher: EmbeddingCache | None) -> tuple[History, Steps]:
        torch.manual_seed(config.seed)
        losses = LOSSES[method][1](self.sizes["people"])
        timed = Steps(self.batches(method == "EKD", config.seed), steps)
        return train(config, network, losses, timed, teacher), timed

    def config(self, lr: float, seed: int, **more) -> TrainConfig:
        return TrainConfig(epochs=1, batch_size=self.sizes["batch"], lr=lr, seed=seed,
                           precision=self.sizes["precision"], channels_last=True, share_every=0,
                           device=self.device, **more)

    def network(self, role: str, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS[self.sizes[role]](embedding_size=D)

    def load(self, name: str) -> nn.Module:
        """The trained network of a run."""
        network = self.network("teacher" if name == "teacher" else "student", 0)
        network.load_state_dict(load_file(self.work / name / "student.safetensors"))
        return network.to(self.device).eval()

    def people(self) -> FaceSet:
        return faces(self.work, "people", self.sizes["each"])

    def batches(self, paired: bool = False, seed: int = 0) -> Batches:
        """The pictures, on the device; paired: EKD's halves, as many images a step."""
        known, half = self.people(), self.sizes["batch"] // 2
        if self.pixels is None:
            self.pixels = known.pixels("arcface", self.sizes["side"]).to(self.device)
        sampler = PairSampler(known.labels, half, half // 4, 4, seed=seed) if paired else None
        return Batches(self.pixels, known.labels, None if paired else 2 * half, seed=seed,
                       crop="arcface", key=known.key, sampler=sampler)

    def embeddings(self) -> EmbeddingCache:
        """What the teacher says of every picture and its mirror."""
        contract = {**self.batches().preprocessing, "embedding_size": D}
        file = self.work / "teacher" / "student.safetensors"
        network = Half(self.load("teacher"), self.sizes["precision"])
        teacher = Teacher(network, contract, file_digest(file), torch.zeros(D)).to(self.device)
        os.environ["KDLAB_CACHE"] = str(self.work / "cache")
        return embed_set(teacher, self.people(), batch=self.sizes["batch"])


class Half(nn.Module):
    """A network that computes under autocast and answers in float32."""

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, images: torch.Tensor) -> Output:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return Output(self.network(images).embedding.float())


def stop(out: Path) -> None:
    """Ask the run in `out` to end after its step."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "stop").touch()
