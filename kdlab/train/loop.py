"""The one training loop. Nothing in it is specific to a loss, a network or faces."""

import math
from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kdlab.data.batches import Batch
from kdlab.outputs import Output, Targets
from kdlab.progress import progress
from kdlab.train.checkpoint import post_mortem, save_student
from kdlab.train.config import TrainConfig, unknown
from kdlab.train.log import History, Log


def train(config: TrainConfig, student: nn.Module, losses: dict[str, nn.Module], batches,
          teacher: Callable | None = None) -> History:
    """Train `student` on the sum of all terms of `losses`, logged as name/term.

    student: images (B, 3, H, W) -> Output; moved to the device and trained in place, in eval
    mode afterwards. losses: name -> `loss(student, teacher, targets) -> {term: scalar}`; their
    parameters join the one optimiser. batches: `Batches`, or anything with `len` (steps an
    epoch), `epoch(e)` (yields Batch) and, optionally, `batch_size`. teacher: a network on the
    student's images (put in eval mode, frozen), or a cache of embeddings, called as
    teacher(index, flipped): whatever is no network, or says `is_cache = True`.

    With `config.out`: log.jsonl, line by line; student.safetensors at the end, the student
    alone, with preprocessing, config and step count as metadata. Same seed, same bits on a CPU.

    Raises ValueError before the first step for what cannot work; FloatingPointError at the first
    loss or gradient that is not finite, the weights still those before that step (out/
    nonfinite.safetensors and .json hold what it saw). KeyboardInterrupt saves the student,
    marked unfinished, and is raised on. The last two carry `error.history`.
    """
    device = pick_device(config.device)
    _check(config, losses, batches, teacher)
    torch.manual_seed(config.seed)
    student, losses = student.to(device), nn.ModuleDict(losses).to(device)
    teach = _teaching(teacher, device)
    optimizer = make_optimizer(config, student, losses)
    steps, done, waited, images, mark = config.epochs * len(batches), 0, 0.0, 0, perf_counter()
    lap = mark  # when the last row was written
    student.train()
    losses.train()
    with Log(config.out and config.out / "log.jsonl") as log:
        try:
            for epoch, batch in progress(_stream(batches, config.epochs), "training", steps):
                waited += perf_counter() - mark
                images += len(batch.index)
                moved = set_schedules(config, losses, epoch)
                factor = lr_factor(config, done, steps)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor

                known = teach(batch)  # Output or None
                batch = batch.to(device)
                output = student(batch.images)
                terms = named_terms(losses, output, known, batch.targets)
                values = torch.stack([*terms.values()])  # (terms,)
                objective = values.sum()
                optimizer.zero_grad()
                objective.backward()
                norm = get_total_norm([p.grad for p in student.parameters() if p.grad is not None])

                # One copy to the host a step, before the weights move.
                numbers = torch.stack([*values.detach(), objective.detach(), norm]).tolist()
                row = dict(zip([*terms, "loss", "gradient_norm"], numbers, strict=True))
                if not all(map(math.isfinite, numbers)):
                    raise FloatingPointError(post_mortem(
                        config, done + 1, epoch + 1, row, batch, known, student, losses))
                if config.clip is not None:
                    clip_grads_with_norm_(student.parameters(), config.clip, norm)
                optimizer.step()
                done += 1

                if (done - 1) % config.log_every == 0 or done == steps:
                    now = perf_counter()
                    log.write({
                        "step": done, "epoch": epoch + 1, "lr": config.lr * factor, **row,
                        "images_per_second": images / (now - lap),
                        "data_wait": waited / (now - lap), **moved, **_reports(losses)})
                    lap, waited, images = now, 0.0, 0
                mark = perf_counter()
        except (KeyboardInterrupt, FloatingPointError) as error:
            error.history = log.history
            if config.out and isinstance(error, KeyboardInterrupt):
                save_student(config, student, batches, done, finished=False)
            raise
        finally:
            student.eval()
            losses.eval()
    if config.out:
        save_student(config, student, batches, done)
    return log.history


def named_terms(losses: nn.ModuleDict, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
    """Every term of every loss as name/term, scalars with a graph.

    Losses refuse numbers of the student that are not finite; the one term is then their sum, such
    as student/embedding, so that a diverged network ends like any other loss that is not finite.
    """
    try:
        return {f"{name}/{term}": value for name, loss in losses.items()
                for term, value in loss(student, teacher, targets).items()}
    except ValueError:
        seen = {"embedding": student.embedding, "logits": student.logits}
        seen |= {f"stage{k}": features for k, features in enumerate(student.features, 1)}
        for name, values in seen.items():
            if values is not None and not values.isfinite().all():
                return {f"student/{name}": values.sum()}
        raise


def lr_factor(config: TrainConfig, step: int, steps: int) -> float:
    """The share of the peak learning rate at `step` (from 0) of `steps`: in [0, 1].

    A linear rise over the warm-up, then half a cosine over the rest, or gamma for each milestone
    passed.
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
    epoch = step * config.epochs / steps
    return config.gamma ** sum(epoch >= m for m in config.milestones)


def set_schedules(config: TrainConfig, losses: nn.ModuleDict, epoch: int) -> dict[str, float]:
    """Move the scheduled attributes to their values at `epoch` (from 0), and return those.

    The values of a schedule lie evenly over the epochs, first to last, with straight lines
    between; a run of one epoch has the first value. An attribute stays where the run ends.
    """
    moved = {}
    for path, values in config.schedules.items():
        name, attribute = path.split(".")
        places = np.linspace(0, max(config.epochs - 1, 1), len(values))
        moved[path] = float(np.interp(epoch, places, values))
        setattr(losses[name], attribute, moved[path])
    return moved


def make_optimizer(config: TrainConfig, student: nn.Module,
                   losses: nn.ModuleDict) -> torch.optim.Optimizer:
    """One optimiser over the student and every loss.

    A loss with `param_groups(config)` names groups of its own ({"params": ..., "lr": ...}, each
    following the schedule from its own rate); what it leaves out joins the common group.
    """
    groups = [{**group, "params": list(group["params"])} for loss in losses.values()
              if hasattr(loss, "param_groups") for group in loss.param_groups(config)]
    named = {id(p) for group in groups for p in group["params"]}
    common = [p for p in (*student.parameters(), *losses.parameters()) if id(p) not in named]
    groups = [{"params": common}, *groups]
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999),
                                      weight_decay=config.weight_decay)  # 0.999: torch's default
    else:
        optimizer = torch.optim.SGD(groups, config.lr, config.momentum,
                                    weight_decay=config.weight_decay)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def pick_device(name: str) -> torch.device:
    """'cpu', 'cuda' or 'auto' (cuda if there is one); ValueError for a cuda that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU here; use 'cpu' or 'auto'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _stream(batches, epochs: int) -> Iterator[tuple[int, Batch]]:
    for epoch in range(epochs):
        for batch in batches.epoch(epoch):
            yield epoch, batch


def _teaching(teacher: Callable | None, device: torch.device) -> Callable[[Batch], Output | None]:
    """batch -> what the teacher says about it, without a graph, on `device`."""
    if teacher is None:
        return lambda batch: None
    cached = _is_cache(teacher)
    if not cached:
        teacher.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def teach(batch: Batch) -> Output:
        if not cached:
            return teacher(batch.images.to(device))
        known = teacher(batch.index, batch.flipped)
        return known._replace(embedding=known.embedding.to(device, non_blocking=True))

    return teach


def _is_cache(teacher: Callable | None) -> bool:
    return teacher is not None and getattr(teacher, "is_cache", not isinstance(teacher, nn.Module))


def _reports(losses: nn.ModuleDict) -> dict[str, float]:
    """What the losses say of themselves, as name.key."""
    return {f"{name}.{key}": float(value) for name, loss in losses.items()
            if hasattr(loss, "report") for key, value in loss.report().items()}


def _check(config: TrainConfig, losses: dict[str, nn.Module], batches, teacher) -> None:
    """Everything that can be refused before the first step, in words."""
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
        if needs - {"embedding"} and _is_cache(teacher):
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
    if _is_cache(teacher) and None not in (rows, known) and rows != known:
        raise ValueError(f"the cache holds the embeddings of {known} pictures, the batches draw "
                         f"from {rows}: it belongs to another set")
    key, identity = getattr(batches, "key", None), getattr(teacher, "identity", {})
    if key and identity and identity["faces"] != key:
        raise ValueError(f"the cache holds embeddings of the set {identity['faces'][:12]}, the "
                         f"batches draw from {key[:12]}; embed that set")
    if len(batches) < 1:
        raise ValueError("an epoch of these batches has no step; there is nothing to train on")
