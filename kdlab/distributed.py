"""One batch out of the batches of all processes, for losses that look at pairs or at every label.

With one process each function returns what it is given. Every process must call them alike.
"""

import os
import sys
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def mean(numbers: Tensor) -> Tensor:
    """The mean of every process's numbers, without a gradient."""
    if processes() > 1:
        dist.all_reduce(numbers)
        numbers /= processes()
    return numbers


def everywhere(true: Tensor) -> bool:
    """Is it so in every process?   true: () bool."""
    said = true.to(torch.int32)
    if processes() > 1:
        dist.all_reduce(said, dist.ReduceOp.MIN)
    return bool(said)


def gather(rows: Tensor) -> Tensor:
    """Every process's rows, dealt as they were: (B, ...) -> (W * B, ...), without a gradient.

    Process r of W holds rows r, r + W, r + 2 W, ... of a batch (`Batches`), so this is the whole
    batch in its own order: what depends on it, and on random numbers, is as with one process.
    ValueError, on every process, where they hold different numbers of rows.
    """
    if processes() == 1:
        return rows.detach()
    rows = rows.detach().contiguous()
    _same_number(rows)
    parts = [torch.empty_like(rows) for _ in range(processes())]
    dist.all_gather(parts, rows)
    return torch.stack(parts, 1).flatten(0, 1)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """As `gather`, and the gradient flows back to the rows of each process.

    Each process computes the whole loss on the gathered rows; going back, the processes' equal
    gradients are summed, and DistributedDataParallel then takes their mean: together the gradient
    of one process that holds the whole batch, not that times the number of processes.
    """
    return rows if processes() == 1 else _Gather.apply(rows)


def broadcast(tensor: Tensor) -> None:
    """Give every process the values that rank 0 holds, in place."""
    if processes() > 1:
        dist.broadcast(tensor, src=0)


class _Gather(torch.autograd.Function):
    """`gather` going forward; going back, the sum over processes of the gradient of own rows.

    torch.distributed.nn has one too, but warns at every call that it will go.
    """

    @staticmethod
    def forward(ctx, rows):
        return gather(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        total = grad.clone(memory_format=torch.contiguous_format)  # reduced in place
        dist.all_reduce(total)
        return total[rank()::processes()]


def _same_number(rows: Tensor) -> None:
    number = torch.tensor([len(rows), -len(rows)], device=rows.device)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    most, least = int(number[0]), -int(number[1])
    if most != least:
        raise ValueError(f"the processes hold batches of {least} to {most} rows; drop the last, "
                         "shorter batch (drop_last=True)")


def leave(code: int = 0) -> NoReturn:
    """End a process of a group now, with this exit code.

    DistributedDataParallel keeps the process group alive past destroy_process_group(). A thread of
    gloo's that lets go of its last tensor while the interpreter is taken down wants that
    interpreter, and the process aborts though all its work is done (PyTorch, pull request 179291).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
