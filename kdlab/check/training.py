"""Exercises about a training run: batches dealt to processes, its rate, its traffic, its files.

Goyal et al., "Accurate, Large Minibatch SGD", 2017 (the rate); Patarasuk, Yuan, "Bandwidth optimal
all-reduce algorithms", JPDC 69, 2009 (the ring).
"""

from collections.abc import Callable, Sequence

import numpy as np

from kdlab.check.judge import Case, Mistake, judge

FLOAT = 4  # bytes of a float32


def undeal(fn: Callable) -> Callable:
    """W arrays (n, ...), process r's rows r, r + W, ... of a batch -> the batch, (W n, ...)."""
    return judge("undeal", fn, _undeal, _undeal_cases(), _UNDEAL_MISTAKES)


def learning_rate(fn: Callable) -> Callable:
    """The rate at `step` (from 0) of `steps`: a warm-up, then a line down to 0.

    learning_rate(step, steps, lr, lr_batch, batch_size, warm): lr is stated for batches of
    lr_batch; warm: steps of the warm-up, whose first step already has 1 / warm of the peak.
    """
    return judge("learning_rate", fn, _learning_rate, _rate_cases(), _RATE_MISTAKES)


def ring_bytes(fn: Callable) -> Callable:
    """Parameters P, GPUs W -> the bytes each GPU sends while a ring sums P float32 gradients."""
    return judge("ring_bytes", fn, _ring_bytes, _ring_cases(), _RING_MISTAKES)


def safe_order(fn: Callable) -> Callable:
    """A list of "write", "fsync", "rename", "delete" -> is a whole checkpoint there at any moment?

    write: the new one, to another name; fsync: its bytes, onto the disk; rename: it gets its name;
    delete: the old one goes. A step may be missing.
    """
    return judge("safe_order", fn, _safe_order, _order_cases(), _ORDER_MISTAKES)


def _undeal(parts: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(parts, 1)  # (n, W, ...)
    return stacked.reshape(-1, *stacked.shape[2:])


def _undeal_cases() -> list[Case]:
    def deal(batch, W):
        return [batch[r::W] for r in range(W)]

    rows = np.random.default_rng(17).normal(size=(12, 3))
    return [
        ("rows 0 to 5 of two processes: 0 2 4 and 1 3 5", (deal(np.arange(6), 2),)),
        ("one process: nothing changes", (deal(np.arange(4), 1),)),
        ("12 rows of 3 numbers, four processes", (deal(rows, 4),)),
        ("as many processes as rows each has, 3 and 3", (deal(np.arange(9), 3),)),
    ]


_UNDEAL_MISTAKES: list[Mistake] = [
    (lambda parts: np.concatenate(parts),
     "that puts process after process: row 1 of the batch is the first row of process 1, not the "
     "second of process 0; take the rows in turns"),
    (lambda parts: np.concatenate(parts[::-1]),
     "that puts process after process, the last one first; take the rows in turns"),
    (lambda parts: np.stack(parts, 1),
     "the order is right, but one axis too many is left: (n, W, ...) should become (W n, ...)"),
    (lambda parts: np.stack(parts),
     "that is one block a process, (W, n, ...); the processes belong on axis 1, and then the first "
     "two axes become one"),
    (lambda parts: _undeal(parts[::-1]),
     "the rows come in turns, but process 0 holds the first of each turn, not the last"),
    (lambda parts: np.sort(np.concatenate(parts), axis=0),
     "sorting finds the order only where the rows happen to be numbers in order; their place says "
     "it, not their value"),
]


def _learning_rate(step: int, steps: int, lr: float, lr_batch: int, batch_size: int,
                   warm: int) -> float:
    peak = lr * batch_size / lr_batch
    return peak * (step + 1) / warm if step < warm else peak * (1 - (step - warm) / (steps - warm))


def _rate_cases() -> list[Case]:
    return [
        ("the batch of the recipe, no warm-up, half way", (50, 100, 0.1, 512, 512, 0)),
        ("the first step of ten of warm-up", (0, 110, 0.1, 512, 512, 10)),
        ("twice the batch, the last step of the warm-up: the peak", (9, 110, 0.1, 512, 1024, 10)),
        ("a quarter of the batch, half way down", (60, 110, 0.1, 512, 128, 10)),
        ("the last step", (109, 110, 0.1, 512, 1024, 10)),
    ]


def _rated(warmed: Callable, fallen: Callable,
           scale: Callable = lambda batch, ref: batch / ref) -> Callable:
    """Another rule: warmed(step, warm), fallen(step, steps, warm), scale(batch_size, lr_batch)."""
    def rate(step, steps, lr, lr_batch, batch_size, warm):
        return lr * scale(batch_size, lr_batch) * (warmed(step, warm) if step < warm
                                                   else fallen(step, steps, warm))
    return rate


def _risen(step, warm):
    return (step + 1) / warm


def _down(step, steps, warm):
    return 1 - (step - warm) / (steps - warm)


_RATE_MISTAKES: list[Mistake] = [
    (_rated(_risen, _down, lambda b, ref: ref / b),
     "the factor is upside down: a larger batch has a less noisy gradient and takes a larger step"),
    (_rated(_risen, _down, lambda b, ref: 1),
     "the batch is not looked at: lr is stated for lr_batch and grows in proportion"),
    (_rated(_risen, _down, lambda b, ref: (b / ref) ** 0.5),
     "the root is another rule (for Adam, and where noise must stay the same); this one is in "
     "proportion"),
    (_rated(lambda step, warm: step / warm, _down),
     "the warm-up is one step late: its first step, step 0, already has 1 / warm of the peak"),
    (_rated(_risen, lambda step, steps, warm: 1 - step / steps),
     "the line down begins at step 0 and jumps below the peak after the warm-up; it begins where "
     "the warm-up ends"),
    (_rated(_risen, lambda step, steps, warm: 1 - (step - warm) / steps),
     "the line down has steps - warm steps to reach 0, not all of them"),
    (_rated(lambda step, warm: 1, _down),
     "there is no warm-up: in its steps the rate is step + 1 of warm parts of the peak"),
    (lambda step, steps, lr, ref, b, warm: _learning_rate(step, steps, lr, ref, b, warm)
     if step < warm else lr * b / ref,
     "after the warm-up the rate stays at the peak; it goes down to 0 along a line"),
    (lambda step, steps, lr, ref, b, warm: _learning_rate(step, steps, lr, ref, b, warm)
     if step < warm else _learning_rate(step, steps, lr, ref, ref, warm),
     "only the warm-up knows the batch; the factor holds for the whole run"),
]


def _ring_bytes(parameters: int, gpus: int) -> float:
    return 2 * (gpus - 1) / gpus * FLOAT * parameters


def _ring_cases() -> list[Case]:
    return [
        ("two GPUs: as many bytes as the gradients have", (1_000_000, 2)),
        ("one GPU: nothing", (1_000_000, 1)),
        ("eight GPUs, a network of 1.2 M parameters", (1_199_488, 8)),
        ("64 GPUs, with a margin head of 85,742 classes", (1_199_488 + 85_742 * 512, 64)),
    ]


_RING_MISTAKES: list[Mistake] = [
    (lambda P, W: (W - 1) / W * FLOAT * P,
     "that is half: the ring goes round twice, once to sum the parts and once to hand the sums "
     "round, with four bytes a number (gradients stay float32 under bf16)"),
    (lambda P, W: 2 * (W - 1) * FLOAT * P,
     "that is what all GPUs send together; each sends a part of 1 / W at a time"),
    (lambda P, W: (W - 1) * FLOAT * P,
     "that is everybody sending all of it to everybody; the ring sends parts of 1 / W"),
    (lambda P, W: 2 * FLOAT * P * (W > 1),
     "that is the limit of many GPUs; a GPU keeps 1 / W of its own at each turn: (W - 1) / W"),
    (lambda P, W: 2 * FLOAT * P,
     "one GPU has nobody to send to: (W - 1) / W is missing"),
    (lambda P, W: 2 * (W - 1) / W * P, "those are numbers, not bytes: a float32 has four"),
    (lambda P, W: 2 * (W - 1) / W * 8 * FLOAT * P, "those are bits; a float32 has four bytes"),
    (lambda P, W: FLOAT * P, "that is one gradient, whoever else there is; W plays a part"),
]


def _safe_order(steps: Sequence[str]) -> bool:
    if not {"write", "fsync", "rename"} <= set(steps):
        return False
    write, fsync, rename = (steps.index(step) for step in ("write", "fsync", "rename"))
    return write < fsync < rename and ("delete" not in steps or steps.index("delete") > rename)


def _order_cases() -> list[Case]:
    return [
        ("write, fsync, rename, delete", (["write", "fsync", "rename", "delete"],)),
        ("nothing is deleted", (["write", "fsync", "rename"],)),
        ("without fsync the name may come before the bytes", (["write", "rename", "delete"],)),
        ("fsync after the rename", (["write", "rename", "fsync", "delete"],)),
        ("delete first, to make room", (["delete", "write", "fsync", "rename"],)),
        ("delete before the rename", (["write", "fsync", "delete", "rename"],)),
        ("the new one never gets its name", (["write", "fsync"],)),
        ("fsync of a file that is not written yet", (["fsync", "write", "rename", "delete"],)),
    ]


def _before(steps: Sequence[str], *names: str) -> bool:
    """Are they there, in this order?"""
    places = [steps.index(name) for name in names if name in steps]
    return len(places) == len(names) and places == sorted(places)


_ORDER_MISTAKES: list[Mistake] = [
    (lambda steps: _before(steps, "write", "rename") and (
        "delete" not in steps or _before(steps, "rename", "delete")),
     "fsync is not asked for: the system may put the new name on the disk before the bytes"),
    (lambda steps: _before(steps, "write", "fsync", "rename"),
     "delete is not looked at: before the rename only the old checkpoint bears a name"),
    (lambda steps: steps == ["write", "fsync", "rename", "delete"],
     "nothing needs to be deleted: without it both checkpoints stay, which is safe"),
    (lambda steps: "fsync" in steps and _before(steps, "write", "rename") and (
        "delete" not in steps or _before(steps, "rename", "delete")),
     "fsync is there, but its place counts too: after the write, before the rename"),
    (lambda steps: _before(steps, "fsync", "rename") and (
        "delete" not in steps or _before(steps, "rename", "delete")),
     "an fsync before the write saves nothing: the order of those two counts as well"),
    (lambda steps: {"write", "fsync", "rename"} <= set(steps),
     "all three are there, and their order is not looked at"),
    (lambda steps: "fsync" in steps,
     "fsync alone is not enough: rename and delete have places too"),
    (lambda steps: not _safe_order(steps), "yes and no are exchanged"),
    (lambda steps: True,
     "not every order is safe: think of the power going off between two steps"),
    (lambda steps: _before(steps, "write", "fsync"),
     "before the rename nobody finds the new file by its name; rename and delete are not looked "
     "at"),
]
