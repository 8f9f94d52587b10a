"""What train() refuses before its first step."""

from collections.abc import Callable, Mapping

from torch import nn

from kdlab.data.batches import Batch
from kdlab.train.config import TrainConfig, unknown


def is_cache(teacher: Callable | None) -> bool:
    """Does this teacher hold embeddings only?"""
    return teacher is not None and getattr(teacher, "is_cache", not isinstance(teacher, nn.Module))


def tails(losses: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks whose tail a loss borrows (ShrinkTeaNet), by the loss's name."""
    owners = {name: getattr(getattr(loss, "tail", None), "__self__", None)
              for name, loss in losses.items()}
    return {name: owner for name, owner in owners.items() if isinstance(owner, nn.Module)}


def refuse_nan(batch: Batch) -> bool:
    """True; ValueError where the images of a run's first batch are not all finite numbers."""
    bad = ~batch.images.flatten(1).isfinite().all(1)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of the first {len(bad)} pictures hold NaN or infinity "
                         f"(row {int(batch.index[bad.cpu()][0])} of the set is the first); mend "
                         "the pictures or what prepares them")
    return True


def check(config: TrainConfig, losses: dict[str, nn.Module], batches, teacher, validate) -> None:
    """Everything that can be refused before the first step, in words."""
    if config.schedule == "plateau" and validate is None:
        raise ValueError("schedule 'plateau' waits for better validations, but nothing validates; "
                         "give validate=, in a run file `validation:`, or take another schedule")
    if not losses:
        raise ValueError("no loss was given; losses={'arc': ArcFace(...)} is the smallest")
    taken = nn.ModuleDict()
    for name, loss in losses.items():
        if not name.isidentifier() or hasattr(taken, name):
            raise ValueError(f"a loss cannot be called {name!r}; use a plain word such as 'kd'")
        needs = set(getattr(loss, "needs", None) or ())
        if needs and teacher is None:
            raise ValueError(f"the loss {name!r} ({type(loss).__name__}) learns from a teacher's "
                             f"{' and '.join(sorted(needs))}, but no teacher was given")
        if needs - {"embedding"} and is_cache(teacher):
            more = " and ".join(sorted(needs - {"embedding"}))
            raise ValueError(f"the loss {name!r} ({type(loss).__name__}) needs the teacher's "
                             f"{more}, and a cache holds embeddings only; pass the network itself")
    for path in config.schedules:
        name, attribute = path.split(".")
        if name not in losses:
            raise ValueError(f"schedules: {unknown('loss', name, list(losses))}")
        value = getattr(losses[name], attribute, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"schedules: {path} is no number that could move; "
                             f"{type(losses[name]).__name__}.{attribute} is {value!r}")
    size = getattr(batches, "batch_size", config.batch_size)
    if size != config.batch_size:
        raise ValueError(f"the batches hold {size} images, config.batch_size is "
                         f"{config.batch_size}; make them agree, the log records the config")
    rows, known = (len(x) if hasattr(x, "__len__") else None
                   for x in (getattr(batches, "pixels", None), teacher))
    if is_cache(teacher) and None not in (rows, known) and rows != known:
        raise ValueError(f"the cache holds the embeddings of {known} pictures, the batches draw "
                         f"from {rows}: it belongs to another set")
    key, identity = getattr(batches, "key", None), getattr(teacher, "identity", {})
    if key and identity and identity["faces"] != key:
        raise ValueError(f"the cache holds embeddings of the set {identity['faces'][:12]}, the "
                         f"batches draw from {key[:12]}; embed that set")
    for name, network in tails(losses).items():
        if identity and getattr(network, "hash", identity["teacher"]) != identity["teacher"]:
            raise ValueError(f"the loss {name!r} has the tail of the teacher {network.hash[:12]}, "
                             f"the cache holds embeddings of {identity['teacher'][:12]}; take "
                             "both from one teacher")
    if len(batches) < 1:
        raise ValueError("an epoch of these batches has no step; there is nothing to train on")
