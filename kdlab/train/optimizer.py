"""The one optimiser over student and losses, its learning rate, and what else moves by schedule."""

import math

import numpy as np
import torch
from torch import nn

from kdlab.train.config import TrainConfig


def lr_factor(config: TrainConfig, step: int, steps: int, falls: int = 0) -> float:
    """The share of the peak learning rate at `step` (from 0) of `steps`: in [0, 1].

    A linear rise over the warm-up, then half a cosine or a line down to 0 over the rest, or gamma
    for each milestone passed, or for each of the `falls` of schedule "plateau".
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
    if config.schedule == "poly":
        return 1 - (step - warm) / (steps - warm)
    if config.schedule == "plateau":
        return config.gamma ** falls
    epoch = step * config.epochs / steps
    return config.gamma ** sum(epoch >= m for m in config.milestones)


def set_rate(config: TrainConfig, optimizer: torch.optim.Optimizer, place: dict,
             steps: int) -> float:
    """Set every group's learning rate for the step after place["done"]; the common one."""
    factor = config.lr_scale * lr_factor(config, place["done"], steps, place["falls"])
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return config.lr * factor


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
