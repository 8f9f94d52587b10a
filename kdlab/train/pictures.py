"""The pictures of a run file: which there are, which rows make a batch, who is held out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.data.batches import DIVIDE, MEAN, Batches, OnDisk
from kdlab.data.faces import SMALLEST
from kdlab.data.folder import ImageFolder
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.samplers import GroupBalancedSampler, PairSampler
from kdlab.evaluate import embed, pair_scores, tpr_at_fpr

IN_MEMORY = 2 << 30  # bytes of pictures held as a tensor; more are read as they are wanted (ours)


class Pictures:
    """What a run trains on, known before anything is rendered or decoded.

    run: a RunConfig.   size: pixels a side of the student's input.   rank, world: this process.
    Labels, groups and the batches that will be drawn are checked here: ValueError in one line for
    one identity, labels with gaps, identities unlike the run file's, groups or batches that
    cannot be drawn, pictures smaller than the student wants.
    """

    def __init__(self, run, size: int, rank: int = 0, world: int = 1):
        if not SMALLEST <= size <= run.sizes[run.crop]:
            raise ValueError(f"student: {run.student} looks at {size} pixels, the pictures have "
                             f"{run.sizes[run.crop]}; take another network or larger pictures")
        self.run, self.size = run, size
        if run.folder:
            f = run.folder
            self.folder = filed("folder", f.path, f.size, f.crop, groups=f.groups,
                                landmarks=f.landmarks, on_bad=f.on_bad)
            self.labels, self.groups = self.folder.labels, self.folder.groups
            check_labels(self.labels, f.identities, f"folder {f.path}")
        else:
            self.people, self.folder = population(run), None
            self.labels, self.groups = self._promised()
        if self.groups is not None:
            check_groups(self.groups, "world.groups" if run.world else str(run.folder.groups))
        self._drawn = {"labels": self.labels, "groups": self.groups, "seed": run.train.seed,
                       "batch_size": run.train.batch_size, "crop": run.crop, "rank": rank,
                       "world": world, "sampler": self._sampler()}
        # Pictures that take no memory: refuses what cannot be drawn.
        nothing = torch.zeros((), dtype=torch.uint8).expand(len(self.labels), 3, size, size)
        Batches(nothing, **self._drawn)

    def take(self, crops: set[str]):
        """The set of faces in these crops, rendered now where it is not yet."""
        w = self.run.world
        return self.folder or _rendered(self.people, range(w.identities), w.per_identity, crops)

    def batches(self, faces) -> Batches:
        """The run's batches of that set, from memory or, of files and large sets, from disk."""
        pixels = OnDisk(faces, self.run.crop, self.size)
        if self.run.world and len(faces) * 3 * self.size**2 <= IN_MEMORY:
            pixels = faces.pixels(self.run.crop, self.size)
        return Batches(pixels, key=faces.key, **self._drawn)

    def _promised(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels and groups of the pictures that `take` will render."""
        w, people = self.run.world, self.people
        pictures = [(i, j) for i in range(w.identities)
                    for j in range(people.images_of(i, w.per_identity))]
        labels = np.array([i for i, _ in pictures])
        if w.groups is None:
            return labels, None
        return labels, np.array([people.identity(i)["group"] if w.groups == "ancestry"
                                 else int(people.image(i, j)[w.groups]) for i, j in pictures])

    def _sampler(self):
        sampler, train = self.run.sampler, self.run.train
        try:
            if sampler and sampler.pairs:
                return PairSampler(self.labels, **sampler.pairs.model_dump(), seed=train.seed)
            return sampler and GroupBalancedSampler(
                self.labels, self.groups, train.batch_size, seed=train.seed,
                cut=sampler.groups.cut)
        except ValueError as error:
            raise ValueError(f"sampler: {error}") from error


def filed(field: str, path: Path, size: int, crop: str, *, on_bad: str = "raise",
          **lists: Path | None):
    """The pictures in a folder of sub-folders or, where there is a train.rec, in that.

    field: of the run file, for errors.   lists: `groups` and `landmarks` of an ImageFolder.
    """
    if path.suffix != ".rec" and not (path / "train.rec").is_file():
        return ImageFolder(path, size, crop, on_bad=on_bad, **lists)
    for name, given in lists.items():
        if given is not None:
            raise ValueError(f"{field}.{name}: {path} is RecordIO, whose pictures have no names; "
                             f"{name} go with a folder of picture files")
    return RecordIOFaces(path, size, crop, on_bad=on_bad)


def check_labels(labels: np.ndarray, identities: int, where: str) -> None:
    """ValueError that begins with `where` unless these are the labels of so many identities.

    labels: (N,) integers; each of 0 .. identities - 1 must be there.
    """
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(f"{where} holds {len(found)} identity; nobody can be told from anybody, "
                         "add others")
    if found[0] != 0 or found[-1] != len(found) - 1:
        gap = int(np.argmax(found != np.arange(len(found))))
        raise ValueError(f"{where}: labels run from {found[0]} to {found[-1]}, and no picture has "
                         f"{gap}; number the identities 0 to {len(found) - 1} without gaps")
    if len(found) != identities:
        raise ValueError(f"{where} holds {len(found)} identities, the run file says {identities}; "
                         f"set identities: {len(found)}")


def check_groups(groups: np.ndarray, where: str) -> None:
    """ValueError that begins with `where` for one group alone or numbers with gaps.   groups: (N,).
    """
    found = np.unique(groups)
    if len(found) < 2 or found[-1] != len(found) - 1:
        raise ValueError(f"{where}: the pictures are of the groups {', '.join(map(str, found))}; "
                         "two at least are wanted, numbered from 0 without gaps")


def population(run):
    """The FaceWorld of a run; with a folder, that of seed 0, for validation."""
    from kdlab.world import FaceWorld

    if run.world is None:
        return FaceWorld(seed=0)
    try:
        return FaceWorld(seed=run.world.seed, **run.world.nuisance)
    except (ValueError, TypeError) as error:
        raise ValueError(f"world.nuisance: {error}") from error


def validator(run, pictures: Pictures) -> Callable[[nn.Module], float] | None:
    """student -> how good it is on held-out pictures, rendered or read into memory now.

    The TPR at an FPR over all their pairs; for a classifier on files of the classes it learns,
    minus the mean cross-entropy. `about` tells one validation from another. ValueError for files
    of other classes.
    """
    v = run.validation
    if v is None:
        return None
    if v.folder is None:
        seen = _rendered(population(run), range(v.first, v.first + v.identities), v.per_identity,
                         {"arcface"})
    else:
        seen = filed("validation", v.folder, run.sizes[run.crop], run.crop, landmarks=v.landmarks)
    judged = run.classifies and v.folder  # by the classes it learns
    if judged and (pictures.folder is None or _classes(seen) != _classes(pictures.folder)):
        raise ValueError(f"validation.folder: {run.student} names classes, and the sub-folders of "
                         f"{v.folder} are not those of the training folder; give them its names")
    images = seen.read(run.crop if v.folder else "arcface", pictures.size, np.arange(len(seen)))

    def validate(student: nn.Module) -> float:
        if judged:
            return -mean_cross_entropy(student, images, torch.from_numpy(seen.labels))
        return tpr_at_fpr(*pair_scores(embed(student, images), seen.labels), v.fpr).tpr

    asked = {} if v.folder else v.model_dump(include={"first", "identities", "per_identity"})
    validate.about = asked | {"faces": seen.key, "measure": "minus the mean cross-entropy" if judged
                              else f"TPR at FPR {v.fpr:g}"}
    return validate


def _classes(files) -> list:
    """What the labels of an ImageFolder or of RecordIO stand for."""
    return getattr(files, "identities", None) or np.unique(files.labels).tolist()


@torch.inference_mode()
def mean_cross_entropy(student: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Of a classifier in eval mode, over all pictures.   images: (N, 3, S, S) uint8; labels: (N,).
    """
    device, total = next(student.parameters()).device, 0.0
    for x, y in zip(images.split(256), labels.split(256), strict=True):  # 256: as evaluate.embed
        logits = student((x.to(device).float() - MEAN) / DIVIDE).logits
        total += float(F.cross_entropy(logits.float(), y.to(device), reduction="sum"))
    return total / len(labels)


def _rendered(people, identities: range, per_identity: int, crops: set[str]):
    from kdlab.world import rendered

    return rendered(people, identities=identities, per_identity=per_identity,
                    crops=tuple(sorted(crops)))
