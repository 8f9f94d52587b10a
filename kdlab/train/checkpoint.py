"""What a run leaves on disk besides its log: the student, or the evidence of a broken step."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from kdlab.cache import write_atomic
from kdlab.data.batches import Batch
from kdlab.outputs import Output
from kdlab.train.config import TrainConfig

FORMAT = "kdlab student 1"


def save_student(config: TrainConfig, student: nn.Module, batches, done: int,
                 finished: bool = True) -> Path:
    """Write out/student.safetensors, whole or not at all; returns its path.

    Metadata, one JSON object under "kdlab": format, preprocessing (keyed as in a teacher's
    contract), the class of the network, config, steps done, and whether the run finished.
    """
    about = {"format": FORMAT, "preprocessing": getattr(batches, "preprocessing", None),
             "network": type(student).__name__,
             "config": config.model_dump(mode="json", exclude={"out"}),
             "steps": done, "finished": finished}
    # One entry: safetensors writes several in no fixed order, and equal runs would differ.
    metadata = {"kdlab": json.dumps(about, sort_keys=True)}
    path = config.out / "student.safetensors"
    write_atomic(path, save(_tensors(student.state_dict()), metadata))
    return path


def post_mortem(config: TrainConfig, step: int, epoch: int, numbers: dict[str, float],
                batch: Batch, teacher: Output | None, student: nn.Module,
                losses: nn.ModuleDict) -> str:
    """Save what the step that broke saw, and say in one line what broke and where it lies.

    numbers: the terms, "loss" and "gradient_norm" of the step; steps and epochs from 1.
    Writes out/nonfinite.json (numbers, the norm of each parameter's gradient) and
    out/nonfinite.safetensors (batch, teacher's embedding, student.*, losses.*), if there is an
    out. Parameters are those before the step; buffers (BatchNorm statistics, class centres) have
    already seen the batch.
    """
    bad = ", ".join(f"{name} = {value}" for name, value in numbers.items()
                    if not math.isfinite(value))
    if config.out is None:
        where = "set config.out to keep the batch"
    else:
        whole = nn.ModuleDict({"student": student, "losses": losses})
        targets = {k: v for k, v in batch.targets._asdict().items() if v is not None}
        if teacher is not None:
            targets["teacher"] = teacher.embedding
        write_atomic(config.out / "nonfinite.safetensors", save(_tensors(
            {"images": batch.images, "index": batch.index, "flipped": batch.flipped, **targets,
             **whole.state_dict()})))
        norms = {name: str(float(p.grad.norm())) for name, p in whole.named_parameters()
                 if p.grad is not None}
        write_atomic(config.out / "nonfinite.json", json.dumps(
            {"step": step, "epoch": epoch, "numbers": {k: str(v) for k, v in numbers.items()},
             "gradient_norms": norms}, indent=1))
        where = (f"look at {config.out / 'nonfinite.json'} (terms, gradient norms) and "
                 "nonfinite.safetensors beside it (batch, teacher, weights)")
    return (f"step {step} (epoch {epoch}): not finite: {bad}; stopped before the weights moved. "
            f"Lower lr ({config.lr:g}) or lengthen the warm-up; {where}")


def _tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in plain memory order: safetensors refuses views and channels_last."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in state.items()}
