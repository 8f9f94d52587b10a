"""Checkpoints: the whole state of a run in one file, written whole or not at all.

A checkpoint is one safetensors file, out/checkpoints/STEP.safetensors: the student, every loss with
its state, the optimiser, the random numbers; as metadata what the run is, its place, and a SHA-256
of all tensors. The order of the pictures needs no state: an epoch follows from (seed, epoch), so
the number of steps done is a place in it.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdlab.cache import atomic
from kdlab.train.config import TrainConfig

FORMAT = "kdlab checkpoint 1"
# What may change between a run and its continuation: nothing that decides what is learnt.
FREE = {"out", "device", "compile", "log_every", "share_every", "checkpoint_every", "keep"}


def whole_state(student: nn.Module, losses: nn.ModuleDict,
                optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a run by name: student.*, losses.*, optimizer.INDEX.*, rng.*"""
    state = {f"student.{name}": value for name, value in student.state_dict().items()}
    state |= {f"losses.{name}": value for name, value in losses.state_dict().items()}
    state |= {f"optimizer.{index}.{name}": value
              for index, slots in optimizer.state_dict()["state"].items()
              for name, value in slots.items() if isinstance(value, Tensor)}
    state["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["rng.cuda"] = torch.cuda.get_rng_state()
    return state


def set_state(state: dict[str, Tensor], student: nn.Module, losses: nn.ModuleDict,
              optimizer: torch.optim.Optimizer) -> None:
    """`whole_state` back where it came from."""
    parts = {"student": {}, "losses": {}, "optimizer": {}, "rng": {}}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    student.load_state_dict(parts["student"])
    losses.load_state_dict(parts["losses"])
    slots = {}
    for name, value in parts["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots,
                               "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(parts["rng"]["cpu"])
    if "cuda" in parts["rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(parts["rng"]["cuda"])


def about_run(config: TrainConfig, student: nn.Module, losses: nn.ModuleDict, batches,
              teacher, validate=None) -> dict:
    """What makes two runs the same run, as JSON can hold it."""
    names = ("key", "crop", "batch_size", "seed", "flip", "drop_last", "channels_last")
    sampler = getattr(batches, "sampler", None)
    known = getattr(teacher, "identity", None)
    judged = getattr(validate, "about", None)
    return json.loads(json.dumps({
        "config": config.model_dump(mode="json", exclude=FREE),
        "student": {"network": type(student).__name__, **_shapes(student)},
        "losses": {name: {
            "loss": type(loss).__name__, **_shapes(loss),
            **{key: value for key, value in _plain(loss).items()
               if f"{name}.{key}" not in config.schedules},
            **{key: _hash({key: getattr(loss, key).cpu()}) for key in getattr(loss, "fixed", ())},
        } for name, loss in losses.items()},
        "batches": {"steps an epoch": len(batches),
                    **{name: getattr(batches, name, None) for name in names},
                    "sampler": sampler and {"kind": type(sampler).__name__, **_plain(sampler)}},
        "teacher": known or getattr(teacher, "hash", type(teacher).__name__),
        **({} if judged is None else {"validation": judged})}))


def save_checkpoint(config: TrainConfig, about: dict, place: dict,
                    state: dict[str, Tensor]) -> Path:
    """Write the state after place["done"] steps and drop all but the newest `config.keep`.

    OSError where it cannot be written; the earlier checkpoints are then still there.
    """
    state = on_cpu(state)
    told = {"format": FORMAT, "about": about, "place": place, "sha256": _hash(state)}
    path = config.out / "checkpoints" / f"{place['done']:08d}.safetensors"
    try:
        with atomic(path) as beside:
            save_file(state, beside, {"kdlab": json.dumps(told)})
    except (OSError, safetensors.SafetensorError) as error:
        number = getattr(error, "errno", None) or int(
            next(iter(re.findall(r"os error (\d+)", str(error))), errno.EIO))  # safetensors' words
        full = number in (errno.ENOSPC, errno.EDQUOT)
        kept = found(config.out)
        raise OSError(
            number,
            f"the checkpoint of step {place['done']} cannot be written to {path.parent} "
            f"({'the disk is full' if full else os.strerror(number)}); "
            + (f"that of step {int(kept[-1].stem)} is safe: " if kept else "")
            + ("make room" if full else "mend that") + " and start the run again") from error
    for old in found(config.out)[:-config.keep]:
        old.unlink()
    return path


def found(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((out / "checkpoints").glob("[0-9]*.safetensors"))


def load_checkpoint(out: Path, about: dict) -> tuple[dict, dict[str, Tensor]] | None:
    """(place, state) of the newest checkpoint that is whole; None where there is none at all.

    A damaged one is named on stderr and passed over. ValueError where all are damaged, and where
    they are another run's, with the first settings that differ.
    """
    paths = found(out)
    for path in reversed(paths):
        try:
            told, state = _read(path)
        except (ValueError, OSError, safetensors.SafetensorError) as error:
            print(f"{path} is damaged ({error}); an earlier one is used", file=sys.stderr)
            continue
        if told["about"] != about:
            raise ValueError(f"{out} holds another run ({differences(told['about'], about)}); "
                             "choose another out, or delete that folder to begin anew")
        return told["place"], state
    if paths:
        raise ValueError(f"no checkpoint in {paths[0].parent} is whole; delete that folder to "
                         "begin anew, or bring back a copy of one")
    return None


def differences(there: dict, here: dict, most: int = 3) -> str:
    """'lr is 0.1 there and 0.2 here', of the first few settings that differ."""
    there, here = _flat(there), _flat(here)
    said = [f"{name} is {_short(there.get(name))} there and {_short(here.get(name))} here"
            for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")


def _short(value: object) -> str:
    """A hash by its first twelve digits."""
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{16,}", text) else text


def check_room(config: TrainConfig, state: dict[str, Tensor]) -> None:
    """OSError before the first step where the folder cannot hold what the run will leave."""
    size = sum(value.nbytes for value in state.values())
    need = (config.keep + 2) * size  # one more while it is written; student and best
    free = shutil.disk_usage(config.out).free
    if free < need:
        raise OSError(errno.ENOSPC, f"{config.out} has {free / 1e6:,.0f} MB free and the run may "
                      f"want {need / 1e6:,.0f} MB (a checkpoint is {size / 1e6:,.0f} MB); make "
                      "room, choose another out, or lower train.keep")


def on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU in plain memory order, each in memory of its own, as safetensors wants it."""
    plain, taken = {}, set()
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        whole = value.untyped_storage()
        if whole.data_ptr() in taken or whole.nbytes() != value.nbytes:
            value = value.clone()
        taken.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return plain


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    with safetensors.safe_open(path, "pt") as file:
        told = json.loads((file.metadata() or {}).get("kdlab", "{}"))
    if told.get("format") != FORMAT:
        raise ValueError(f"its format is {told.get('format')!r}, not {FORMAT!r}")
    state = load_file(path)
    if _hash(state) != told["sha256"]:
        raise ValueError("its SHA-256 does not agree")
    return told, state


def _hash(state: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _shapes(module: nn.Module) -> dict[str, str]:
    """One line for all tensors of a module: equal for equal architectures."""
    lines = [f"{name} {tuple(value.shape)}" for name, value in module.state_dict().items()]
    number = sum(value.numel() for value in module.state_dict().values())
    return {"tensors": f"{number} in {hashlib.sha256(repr(lines).encode()).hexdigest()[:12]}"}


def _plain(thing: object) -> dict[str, object]:
    """The settings of an object that JSON can hold."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(thing).items() if name[0] != "_" and name != "training"
            and (isinstance(value, bool | int | float | str) or value is None
                 or isinstance(value, tuple | list)
                 and all(isinstance(x, bool | int | float | str) for x in value))}


def _flat(values: dict, path: str = "") -> dict[str, object]:
    flat = {}
    for name, value in values.items():
        flat |= (_flat(value, f"{path}{name}.") if isinstance(value, dict)
                 else {f"{path}{name}": value})
    return flat
