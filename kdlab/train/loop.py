"""The one training loop. Nothing in it is specific to a loss, a network or faces."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kdlab.data.batches import Batch
from kdlab.distributed import mean, processes
from kdlab.outputs import Output
from kdlab.progress import progress
from kdlab.train.config import TrainConfig
from kdlab.train.keeper import Keeper, interrupts, memory_mb
from kdlab.train.log import History, Log
from kdlab.train.objective import gradient_shares, half, make_objective, whole
from kdlab.train.optimizer import make_optimizer, set_rate, set_schedules
from kdlab.train.post_mortem import post_mortem
from kdlab.train.refusals import check, is_cache, refuse_nan, tails


def train(config: TrainConfig, student: nn.Module, losses: dict[str, nn.Module], batches,
          teacher: Callable | None = None, *,
          validate: Callable[[nn.Module], float] | None = None) -> History:
    """Train `student` on the sum of all terms of `losses`, logged as name/term.

    student: images (B, 3, H, W) -> Output; moved to the device and trained in place, in eval
    mode afterwards. losses: name -> `loss(student, teacher, targets) -> {term: scalar}`; their
    parameters join the one optimiser. batches: `Batches`, or anything with `len` (steps an
    epoch), `epoch(e)` (yields Batch) and, optionally, `batch_size`. teacher: a network on the
    student's images (put in eval mode, frozen), or a cache of embeddings, called as
    teacher(index, flipped): whatever is no network, or says `is_cache = True`. validate: student
    in eval mode -> a number, higher is better, after every `validate_every` epochs; what it says in
    `validate.about`, if it does, is part of the run.

    Where torch.distributed is initialised every process calls this, with its own rows of the
    batches; the losses see to what they must know of each other's rows (kdlab.distributed).

    With `config.out`: log.jsonl, line by line; checkpoints/, the whole state; best.safetensors,
    the student of the best validation; student.safetensors at the end, the student alone, with
    preprocessing, config and step count as metadata. Called again with the same run, it goes on
    from the last checkpoint. Same seed, same bits on a CPU, however often it was broken off.

    Ctrl-C, or a file out/stop, ends the run after the step it is at, checkpoint and student
    saved, with KeyboardInterrupt. Raises ValueError or OSError before the first step for what
    cannot work, as an `out` that holds another run; FloatingPointError at the first loss or
    gradient that is not finite, the weights still those before that step (out/nonfinite.* hold
    what it saw). KeyboardInterrupt and FloatingPointError carry `error.history`.
    """
    device = pick_device(config.device)
    check(config, losses, batches, teacher, validate)
    torch.manual_seed(config.seed)
    student, losses = student.to(device), nn.ModuleDict(losses).to(device)
    if config.channels_last:
        student = student.to(memory_format=torch.channels_last)
    teach = _teaching(teacher, losses, device, config.precision)
    optimizer = make_optimizer(config, student, losses)
    keeper = Keeper(config, student, losses, optimizer, batches, teacher, validate)
    place, rows = keeper.resume()
    objective = make_objective(student, losses, config)
    steps = config.epochs * len(batches)
    student.train()
    losses.train()
    with Log(keeper.log, rows) as log, interrupts(config.out) as stopped:
        pace = Pace(device)
        try:
            stream = _stream(batches, config.epochs, place["done"])
            for epoch, batch in pace.of(progress(stream, "training", steps - place["done"])):
                moved = set_schedules(config, losses, epoch)
                lr = set_rate(config, optimizer, place, steps)
                known = teach(batch)  # Output or None
                batch = batch.to(device)

                terms = objective(batch.images, known, batch.targets)
                values = torch.stack([*terms.values()])  # (terms,)
                total = values.sum()
                step, shares = place["done"] + 1, {}
                if config.share_every and step % config.share_every == 0:
                    shares = gradient_shares(terms, student)
                optimizer.zero_grad()
                total.backward()
                norm = get_total_norm([p.grad for p in student.parameters() if p.grad is not None])

                # One copy to the host a step, before the weights move.
                wish = values.new_tensor(float(stopped()))
                own = torch.stack([*values.detach(), total.detach(), norm, wish])
                *numbers, wished = mean(own.clone()).tolist()  # of all processes
                row = dict(zip([*terms, "loss", "gradient_norm"], numbers, strict=True))
                stopping = wished > 0  # one process is enough, and all stop at this step
                if not all(map(math.isfinite, numbers)):
                    mine = dict(zip(row, own.tolist(), strict=False))
                    raise FloatingPointError(post_mortem(
                        config, step, epoch + 1, mine, batch, known, student, losses))
                if config.clip is not None:
                    clip_grads_with_norm_(student.parameters(), config.clip, norm)
                optimizer.step()
                place["done"] = step

                checked = keeper.epoch_end(place)
                if (step - 1) % config.log_every == 0 or step == steps or checked or shares:
                    log.write({"step": step, "epoch": epoch + 1, "lr": lr, **row, **pace.lap(),
                               **moved, **_reports(losses), **shares, **checked})
                keeper.after_step(place, log, stopping)
                if stopping:
                    raise KeyboardInterrupt
        except (KeyboardInterrupt, FloatingPointError) as error:
            error.history = log.history
            if isinstance(error, KeyboardInterrupt):
                keeper.save_student(place["done"], finished=False)
            raise
        finally:
            student.eval()
            losses.eval()
    keeper.save_student(steps, finished=True)
    return log.history


class Pace:
    """Images a second, and how much of the time went by waiting for them, from row to row."""

    def __init__(self, device: torch.device):
        self.device, self.images, self.waited, self.since = device, 0, 0.0, perf_counter()

    def of(self, stream: Iterable[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
        """The stream, its batches counted and what they are waited for."""
        mark = perf_counter()
        for epoch, batch in stream:
            self.waited += perf_counter() - mark
            self.images += processes() * len(batch.index)
            yield epoch, batch
            mark = perf_counter()

    def lap(self) -> dict[str, float]:
        """What a row of the log says of the time since the row before."""
        now = perf_counter()
        said = {"images_per_second": self.images / (now - self.since),
                "data_wait": self.waited / (now - self.since), "memory_mb": memory_mb(self.device)}
        self.images, self.waited, self.since = 0, 0.0, now
        return said


def pick_device(name: str) -> torch.device:
    """'cpu', 'cuda' or 'auto' (cuda if there is one); ValueError for a cuda that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU here; use 'cpu' or 'auto'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _stream(batches, epochs: int, done: int) -> Iterator[tuple[int, Batch]]:
    """(epoch, batch) from the step after `done` on."""
    (first, start), begun = divmod(done, len(batches)), False
    for epoch in range(first, epochs):
        if start and "start" in inspect.signature(batches.epoch).parameters:
            rest = batches.epoch(epoch, start=start)
        else:
            rest = itertools.islice(batches.epoch(epoch), start, None)
        for batch in rest:
            if epoch == first and not begun:
                begun = refuse_nan(batch)
            yield epoch, batch
        start = 0


def _teaching(teacher: Callable | None, losses: nn.ModuleDict, device: torch.device,
              precision: str) -> Callable[[Batch], Output | None]:
    """batch -> what the teacher says about it, without a graph, on `device`."""
    for network in tails(losses).values():
        network.to(device)
    if teacher is None:
        return lambda batch: None
    cached = is_cache(teacher)
    if not cached:
        teacher.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def teach(batch: Batch) -> Output:
        if not cached:
            with half(device, precision):
                return whole(teacher(batch.images.to(device)))
        known = teacher(batch.index, batch.flipped)
        return known._replace(embedding=known.embedding.to(device, non_blocking=True))

    return teach


def _reports(losses: nn.ModuleDict) -> dict[str, float]:
    """What the losses say of themselves, as name.key."""
    return {f"{name}.{key}": float(value) for name, loss in losses.items()
            if hasattr(loss, "report") for key, value in loss.report().items()}
