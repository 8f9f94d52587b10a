"""insightface's arcface_torch training loop, made again from a description of it: the peer.

What is its own: the head's arccos, margin and cosine run over the whole (B, C) matrix in place and
outside autograd, so the gradient is that of s cos(theta) (straight-through); a cross-entropy whose
value is capped at -ln 1e-30 and whose gradient is not; the gradient of the network clipped to norm
5; SGD with momentum 0.9 and weight decay 5e-4 over network and head; a learning rate that falls
linearly to 0 by the step; the loss read at every step and a line of log at every tenth. Its
partial softmax is at rate 1, its processes are one, and pictures come from the same batches as
kdlab's: decoding is not compared here. The words are ours, so is the code.
"""

import logging
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from alternate import Steps
from torch import Tensor, nn

EVERY = 10  # steps from one line of its log to the next: the value its configs ship


class CappedCrossEntropy(torch.autograd.Function):
    """Mean of -ln p_y with p_y no smaller than 1e-30; the gradient (p - 1_y) / B knows no cap."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        share = logits.softmax(1)
        ctx.save_for_backward(share, labels)
        return -share.gather(1, labels[:, None]).clamp_min(1e-30).log().mean()

    @staticmethod
    def backward(ctx, grad: Tensor):
        share, labels = ctx.saved_tensors
        share = share.scatter_add(1, labels[:, None], -torch.ones_like(share[:, :1]))
        return share * (grad / len(share)), None


class Head(nn.Module):
    """Class rows from N(0, 0.01); margin m = 0.5 and scale s = 64 as its MS1MV2 configs set."""

    def __init__(self, embedding_size: int, num_classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_size) * 0.01)

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight)).clamp(-1, 1)
        with torch.no_grad():  # values move, autograd does not see it
            cosine.arccos_()
            cosine[torch.arange(len(labels), device=labels.device), labels] += 0.5
            cosine.cos_()
        return CappedCrossEntropy.apply(64 * cosine, labels)


def insightface_loop(network: nn.Module, head: Head, batches: Steps, *, lr: float = 0.1,
                     precision: str = "float32", device: str = "cpu",
                     log: Path | None = None) -> None:
    """Train network and head over one epoch of `batches` as that loop does."""
    network, head = network.to(device).train(), head.to(device).train()
    optimizer = torch.optim.SGD([{"params": network.parameters()}, {"params": head.parameters()}],
                                lr=lr, momentum=0.9, weight_decay=5e-4)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    logger, total, mark = logging.Logger("insightface_loop"), 0.0, time.perf_counter()
    lines = logging.FileHandler(log) if log else logging.NullHandler()
    logger.addHandler(lines)
    for step, batch in enumerate(batches.epoch(0), 1):
        batch = batch.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            embedding = network(batch.images).embedding
        loss = head(embedding.float(), batch.targets.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % EVERY == 0:
            now = time.perf_counter()
            rate = EVERY * batches.batch_size / (now - mark)
            logger.info("%.1f images/s  loss %.4f  lr %.6f  step %d  %.2f hours to go", rate,
                        total / EVERY, schedule.get_last_lr()[0], step,
                        (now - mark) / EVERY * (steps - step) / 3600)
            total, mark = 0.0, now
    lines.close()
