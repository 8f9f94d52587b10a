"""The student a run leaves: its weights and, as metadata, how it wants its pictures."""

import json
from pathlib import Path

from safetensors.torch import save
from torch import nn

from kdlab.cache import write_atomic
from kdlab.train.checkpoint import FREE, on_cpu
from kdlab.train.config import TrainConfig

FORMAT = "kdlab student 1"


def save_student(config: TrainConfig, student: nn.Module, batches, done: int,
                 finished: bool = True, name: str = "student", **more) -> Path:
    """Write out/NAME.safetensors, whole or not at all; returns its path.

    Metadata, one JSON object under "kdlab": format, preprocessing (keyed as in a teacher's
    contract), the class of the network, config, steps done, whether the run finished, and `more`.
    """
    about = {"format": FORMAT, "preprocessing": getattr(batches, "preprocessing", None),
             "network": type(student).__name__,
             "config": config.model_dump(mode="json", exclude=FREE),
             "steps": done, "finished": finished, **more}
    # One entry: safetensors writes several in no fixed order, and equal runs would differ.
    metadata = {"kdlab": json.dumps(about, sort_keys=True)}
    path = config.out / f"{name}.safetensors"
    write_atomic(path, save(on_cpu(student.state_dict()), metadata))
    return path
