"""The sections of a run file that speak of pictures: which to train on, in which batches, and by
which the student is judged."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from kdlab.align import SIZES
from kdlab.data.faces import SMALLEST
from kdlab.data.reading import LARGEST
from kdlab.train.config import Strict


class WorldConfig(Strict):
    """Which rendered faces to train on."""

    seed: int = Field(0, ge=0, description="Seed of the face world.")
    identities: int = Field(300, ge=2, description="People: numbers 0 to identities - 1.")
    per_identity: int = Field(16, ge=1, description="Images of each.")
    groups: Literal["ancestry", "grey", "glasses", "mask"] | None = Field(
        None, description="What divides the pictures into groups, for fair distillation.")
    nuisance: dict[str, float] = Field(
        {}, description="Dials of the world, as in kdlab.world.RANGES: {grey: 0.5}.")


class FolderConfig(Strict):
    """Which picture files to train on: one identity a sub-folder, or RecordIO.

    The pictures are aligned already, or a list of landmarks says how to align them.
    """

    path: Path = Field(description="The folder; one with a train.rec, or the .rec itself, is read "
                       "as MXNet's RecordIO.")
    identities: int = Field(ge=2, description="How many people it holds: networks and losses can "
                            "then be built without it.")
    size: int = Field(112, ge=SMALLEST, le=LARGEST, description="Pixels a side.")
    crop: Literal["arcface", "dlib"] = Field(
        "arcface", description="How they were aligned or, with landmarks, shall be.")
    on_bad: Literal["raise", "skip"] = Field(
        "raise", description="A picture that cannot be read ends the run, or another of the same "
        "person takes its place; a run that it ended may go on with skip.")
    groups: Path | None = Field(
        None, description="A CSV: an identity or identity/picture, and its group, from 0.")
    landmarks: Path | None = Field(
        None, description="A CSV: identity/picture and x, y of five landmarks in its pixels "
        "(kdlab.data.lists.read_landmarks). The pictures may then be of any shape, and are aligned "
        "when they are read, to 112 pixels (arcface) or 150 (dlib); a teacher may look at either.")

    @property
    def sizes(self) -> dict[str, int]:
        """The crops there are of the pictures, each with its pixels a side."""
        return {self.crop: self.size} if self.landmarks is None else dict(SIZES)

    @model_validator(mode="after")
    def _one_size(self) -> "FolderConfig":
        if self.landmarks is not None and self.size not in (112, SIZES[self.crop]):
            raise ValueError(f"size {self.size} does not go with landmarks: they align pictures to "
                             f"{SIZES[self.crop]} pixels ({self.crop}); leave size out")
        return self


class Pairs(Strict):
    """Random rows, then identities x per_identity rows: kdlab.data.PairSampler."""

    random: int = Field(ge=0, description="Rows of the first part.")
    identities: int = Field(ge=1, description="Identities of the second.")
    per_identity: int = Field(ge=2, description="Rows of each of them.")
    repeat: bool = Field(False, description="Let identities with fewer pictures in.")


class Groups(Strict):
    """Equally many rows of every class and group: kdlab.data.GroupBalancedSampler."""

    cut: Literal["cycle", "batch"] = Field("cycle", description="Whole cycles, or as released.")


class SamplerConfig(Strict):
    """Which rows make a batch: exactly one of the two."""

    pairs: Pairs | None = None
    groups: Groups | None = None

    @model_validator(mode="after")
    def _one(self) -> "SamplerConfig":
        if (self.pairs is None) == (self.groups is None):
            raise ValueError("a sampler is either 'pairs: {random, identities, per_identity}' or "
                             "'groups: {}'")
        return self


class ValidationConfig(Strict):
    """People that nobody trains on, by whom `best.safetensors` is chosen: rendered, or in files.

    Rendered ones are of the run's world or, where it trains on files, of the world of seed 0.
    """

    first: int = Field(10_000, ge=0, description="Number of the first rendered person.")
    identities: int = Field(60, ge=2, description="How many.")
    per_identity: int = Field(8, ge=2, description="Images of each.")
    fpr: float = Field(1e-3, gt=0, lt=1, description="The value is the TPR at this false positive "
                       "rate, over all pairs.")
    folder: Path | None = Field(
        None, description="Files instead, of the crop and size of the run; for a classifier, of "
        "the classes it learns: the value is minus the mean cross-entropy.")
    landmarks: Path | None = Field(
        None, description="Those of these files, as in `folder`; None: they are aligned already.")

    @model_validator(mode="after")
    def _measurable(self) -> "ValidationConfig":
        if self.landmarks is not None and self.folder is None:
            raise ValueError("landmarks are those of files; name their folder, too")
        strangers = self.identities * (self.identities - 1) // 2 * self.per_identity**2
        if self.folder is None and strangers * self.fpr < 1:
            raise ValueError(f"{strangers:,} pairs of strangers cannot measure an fpr of "
                             f"{self.fpr:g}; take more identities or a larger fpr")
        return self
