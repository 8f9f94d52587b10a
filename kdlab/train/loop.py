"""The one training loop. Nothing in it is specific to a loss, a network or faces."""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kdlab.data.batches import Batch
from kdlab.distributed import everywhere, mean, processes
from kdlab.outputs import Output, Targets
from kdlab.progress import progress
from kdlab.train.config import TrainConfig
from kdlab.train.keeper import Keeper, interrupts, memory_mb
from kdlab.train.log import History, Log
from kdlab.train.optimizer import lr_factor, make_optimizer, set_schedules
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
    in eval mode -> a number, higher is better, after every `validate_every` epochs.

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
    keeper = Keeper(config, student, losses, optimizer, batches, teacher)
    place, rows = keeper.resume()
    objective = _objective(student, losses, config)
    steps, W, waited, images, lap = config.epochs * len(batches), processes(), 0.0, 0, None
    student.train()
    losses.train()
    with Log(keeper.log, rows) as log, interrupts(config.out) as stopped:
        try:
            lap = mark = perf_counter()  # lap: when the last row was written
            stream = _stream(batches, config.epochs, place["done"])
            for epoch, batch in progress(stream, "training", steps - place["done"]):
                waited += perf_counter() - mark
                images += W * len(batch.index)
                moved = set_schedules(config, losses, epoch)
                factor = config.lr_scale * lr_factor(config, place["done"], steps, place["falls"])
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor

                known = teach(batch)  # Output or None
                batch = batch.to(device)
                if config.channels_last:
                    batch = batch._replace(
                        images=batch.images.contiguous(memory_format=torch.channels_last))
                terms = objective(batch.images, known, batch.targets)
                values = torch.stack([*terms.values()])  # (terms,)
                total = values.sum()
                step = place["done"] + 1
                shares = {}
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

                checked = keeper.epoch_end(place, validate)
                if ((step - 1) % config.log_every == 0 or step == steps or checked or shares):
                    now = perf_counter()
                    log.write({
                        "step": step, "epoch": epoch + 1, "lr": config.lr * factor, **row,
                        "images_per_second": images / (now - lap),
                        "data_wait": waited / (now - lap), "memory_mb": memory_mb(device),
                        **moved, **_reports(losses), **shares, **checked})
                    lap, waited, images = now, 0.0, 0
                keeper.after_step(place, log, stopping)
                if stopping:
                    raise KeyboardInterrupt
                mark = perf_counter()
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


class Objective(nn.Module):
    """Student and losses as one module, through which DistributedDataParallel sees both."""

    def __init__(self, student: nn.Module, losses: nn.ModuleDict, precision: str):
        super().__init__()
        self.student, self.losses, self.precision = student, losses, precision

    def forward(self, images: Tensor, teacher: Output | None, targets: Targets):
        """name/term -> scalar; the student under autocast where asked, the losses in float32."""
        with half(images.device, self.precision):
            output = self.student(images)
        output = whole(output)
        # A loss refuses such numbers; the other processes would wait for it in their collectives.
        if processes() > 1 and not everywhere(finite(output)):
            return {"student/embedding": output.embedding.sum()}
        return named_terms(self.losses, output, teacher, targets)


def half(device: torch.device, precision: str):
    """Autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def whole(output: Output) -> Output:
    """What a network said under autocast, in float32; other numbers as they are."""
    def full(part: Tensor | None) -> Tensor | None:
        return part.float() if part is not None and part.dtype == torch.bfloat16 else part

    return Output(full(output.embedding), full(output.logits), tuple(map(full, output.features)))


def finite(output: Output) -> Tensor:
    """Are all numbers of an Output finite?   () bool."""
    parts = (output.embedding, output.logits, *output.features)
    return torch.stack([part.isfinite().all() for part in parts if part is not None]).all()


def _objective(student: nn.Module, losses: nn.ModuleDict, config: TrainConfig) -> nn.Module:
    if config.compile:
        student.compile()  # in place: names and class stay
        if config.share_every:  # several backward passes want what the first would overwrite
            torch._functorch.config.donated_buffer = False
    objective = Objective(student, losses, config.precision)
    if processes() == 1:
        return objective
    # BatchNorm's running statistics stay each process's own (insightface does so): they do not
    # touch training, and process 0's are saved. A term may leave parameters out in some step.
    with warnings.catch_warnings():  # torch 2.13 has a new name for it, which 2.6 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            objective, broadcast_buffers=False, find_unused_parameters=True)


def gradient_shares(terms: dict[str, Tensor], student: nn.Module) -> dict[str, float]:
    """name.term_share -> the norm of the term's own gradient over the sum of those norms.

    Of the gradient in the student's parameters, before clipping; of several processes each
    measures on its own rows. One backward pass a term; nothing is accumulated.
    """
    learnt = [p for p in student.parameters() if p.requires_grad]
    norms = []
    for term in terms.values():
        found = torch.autograd.grad(term, learnt, retain_graph=True, allow_unused=True) \
            if term.requires_grad else ()
        norms.append(get_total_norm([g for g in found if g is not None]))
    norms = torch.stack([norm.to(learnt[0].device) for norm in norms])
    shares = (norms / norms.sum().clamp_min(1e-30)).tolist()  # 1e-30: all gradients zero
    return {f"{name.replace('/', '.')}_share": share
            for name, share in zip(terms, shares, strict=True)}


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
