"""What a run leaves when a step gave numbers that are not finite."""

import json
import math

from safetensors.torch import save
from torch import nn

from kdlab.cache import write_atomic
from kdlab.data.batches import Batch
from kdlab.distributed import rank
from kdlab.outputs import Output
from kdlab.train.checkpoint import on_cpu
from kdlab.train.config import TrainConfig


def post_mortem(config: TrainConfig, step: int, epoch: int, numbers: dict[str, float],
                batch: Batch, teacher: Output | None, student: nn.Module,
                losses: nn.ModuleDict) -> str:
    """Save what the step that broke saw, and say in one line what broke and where it lies.

    numbers: the terms, "loss" and "gradient_norm" of the step; steps and epochs from 1.
    Writes out/nonfinite.json (numbers, the norm of each parameter's gradient) and
    out/nonfinite.safetensors (batch, teacher's embedding, student.*, losses.*), if there is an
    out. Parameters are those before the step; buffers (BatchNorm statistics, class centres) have
    already seen the batch. Of several processes each writes what it saw, those after the first
    with their number in the name.
    """
    mark = f"-{rank()}" if rank() else ""
    bad = ", ".join(f"{name} = {value}" for name, value in numbers.items()
                    if not math.isfinite(value)) or "a number of another process"
    try:
        where = _save(config, step, epoch, numbers, batch, teacher, student, losses, mark)
    except OSError as error:  # the step matters more than its evidence
        where = f"what it saw could not be saved: {error.strerror or error}"
    return (f"step {step} (epoch {epoch}): not finite: {bad}; stopped before the weights moved. "
            f"Lower lr ({config.lr:g}) or lengthen the warm-up; {where}")


def _save(config, step, epoch, numbers, batch, teacher, student, losses, mark: str) -> str:
    """Write the evidence; where it lies, in words."""
    if config.out is None:
        return "set config.out to keep the batch"
    whole = nn.ModuleDict({"student": student, "losses": losses})
    targets = {k: v for k, v in batch.targets._asdict().items() if v is not None}
    if teacher is not None:
        targets["teacher"] = teacher.embedding
    write_atomic(config.out / f"nonfinite{mark}.safetensors", save(on_cpu(
        {"images": batch.images, "index": batch.index, "flipped": batch.flipped, **targets,
         **whole.state_dict()})))
    norms = {name: str(float(p.grad.norm())) for name, p in whole.named_parameters()
             if p.grad is not None}
    write_atomic(config.out / f"nonfinite{mark}.json", json.dumps(
        {"step": step, "epoch": epoch, "numbers": {k: str(v) for k, v in numbers.items()},
         "gradient_norms": norms}, indent=1))
    return (f"look at {config.out / f'nonfinite{mark}.json'} (terms, gradient norms) and "
            f"nonfinite{mark}.safetensors beside it (batch, teacher, weights)")
