"""What the training benchmarks time: networks, pictures, a cached teacher, and steps over them.

Pictures are noise, which costs what faces cost, at a learning rate at which nothing is learnt.
"""

import os
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from alternate import Form, Steps
from insightface_loop import Head, insightface_loop
from torch import nn

from kdlab.data import Batches, EmbeddingCache, FaceSet, PairSampler, embed_set
from kdlab.losses import EKD, RKD, AdaDistill, ArcFace, FeatureOnly, ShrinkTeaNet
from kdlab.models import MODELS
from kdlab.teachers import Teacher
from kdlab.train import History, TrainConfig, train

METHODS = {  # (embedding size, classes) -> the loss beside ArcFace
    "EKD": lambda D, C: EKD(), "AdaDistill": lambda D, C: AdaDistill(D, C),
    "ShrinkTeaNet": lambda D, C: ShrinkTeaNet((), (), None),  # its last layer
    "FeatureOnly": lambda D, C: FeatureOnly(), "RKD": lambda D, C: RKD()}
EACH = 4  # images of a person in EKD's balanced half, and of each person of the set
D = 512  # dimensions of embeddings: the papers'


class Setting:
    """Network, pictures and teacher that every form here is made of.

    network: a name in MODELS.   pictures: at least, rounded to whole batches.   device: where the
    pictures are kept, too.   more: fields of TrainConfig (precision, channels_last, compile).
    folder: for the teacher's cache.
    """

    def __init__(self, folder: str | Path, network: str = "ir_student", batch: int = 128,
                 pictures: int = 1024, classes: int = 1000, device: str = "cpu", **more):
        self.network, self.batch, self.device = network, batch, device
        self.size = MODELS[network](embedding_size=D).input_size
        count = max(-(-pictures // batch), 2) * batch
        noise = np.random.default_rng(0).integers(256, size=(count, 3, self.size, self.size),
                                                  dtype=np.uint8)
        self.labels = np.arange(count) // EACH % classes
        self.classes, self.pixels = classes, torch.from_numpy(noise).to(device)
        self.config = TrainConfig(epochs=1, batch_size=batch, lr=1e-3, warmup=0, device=device,
                                  share_every=0, keep=0, **more)
        self.folder, self.noise = folder, noise

    @cached_property
    def cache(self) -> EmbeddingCache:
        """What the teacher says of the pictures, from a file as in training."""
        faces = FaceSet({"arcface": self.noise}, self.labels, "noise")
        with patch.dict(os.environ, KDLAB_CACHE=str(self.folder)):
            return embed_set(self.teacher().to(self.device), faces, min(self.batch, 512))

    def teacher(self) -> Teacher:
        """Some frozen network of the student's input: a cache costs the same whoever filled it."""
        torch.manual_seed(1)
        contract = {"crop": "arcface", "size": self.size, "channels": "RGB", "mean": [127.5] * 3,
                    "divide": 127.5, "embedding_size": D}
        return Teacher(MODELS[self.network](embedding_size=D), contract, "untrained",
                       torch.zeros(D))

    def batches(self, paired: bool = False) -> Batches:
        """Random rows, or EKD's halves of as many in all."""
        half = self.batch // 2
        sampler = PairSampler(self.labels, half, half // EACH, EACH) if paired else None
        return Batches(self.pixels, self.labels, None if paired else self.batch, crop="arcface",
                       key="noise", sampler=sampler)

    def student(self) -> nn.Module:
        torch.manual_seed(0)
        return MODELS[self.network](embedding_size=D)

    def losses(self, method: str | None = None, gradient: str = "exact") -> dict[str, nn.Module]:
        torch.manual_seed(0)
        losses = {"arcface": ArcFace(D, self.classes, gradient=gradient)}
        if method is not None:
            losses["kd"] = METHODS[method](D, self.classes)
        return losses

    def form(self, method: str | None = None, teacher=None, gradient: str = "exact",
             **config) -> Form:
        """Blocks of train(); network and losses live through all of them."""
        student, losses = self.student(), self.losses(method, gradient)
        batches = self.batches(paired=method == "EKD")
        config = self.config.model_copy(update=config)

        def run(steps: int) -> Steps:
            timed = Steps(batches, steps)
            train(config, student, losses, timed, teacher)
            return timed

        return run

    def trained(self, student: nn.Module, steps: Steps) -> History:
        """One run of train() with ArcFace alone."""
        return train(self.config, student, self.losses(), steps)

    def peer(self, log: Path | None = None) -> Form:
        """Blocks of insightface's loop."""
        torch.manual_seed(0)
        student, head, batches = self.student(), Head(D, self.classes), self.batches()
        if self.config.channels_last:
            student = student.to(memory_format=torch.channels_last)

        def run(steps: int) -> Steps:
            timed = Steps(batches, steps)
            insightface_loop(student, head, timed, lr=self.config.lr, device=self.device,
                             precision=self.config.precision, log=log)
            return timed

        return run
