"""A stated model of what a run costs on more GPUs and nodes, from one measured step.

What it says of W processes, each with a GPU, that share batches of B images:

compute   the measured seconds an image, times B / W. Assumed: a smaller share of the batch is as
          fast an image (true while it still fills the GPU).
exchange  DistributedDataParallel sums the gradients of all parameters, the margin head's among
          them, which every process holds whole. A ring moves 2 (W - 1) / W x 4 bytes a parameter
          through each GPU (Patarasuk, Yuan, JPDC 69, 2009, section 3); over nodes, through each
          node's network card. The part that HIDDEN of the backward pass covers costs nothing.
gather    losses that look at pairs bring every process's embeddings to each, (W - 1) / W x 4 B D
          bytes a matrix, and send the student's gradient back by a sum, twice that. Nothing covers
          it. The start of each message (tens of microseconds) is left out.
reading   the set is read from each node's disk at a given speed, ahead of the step: it costs only
          what it takes longer than the step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FLOAT = 4  # bytes: weights, gradients and momentum are float32 also with train.precision bf16
NVLINK = 450e9  # bytes/s a GPU each way; NVIDIA's H100 and H200 data sheets: 900 GB/s both ways
ETHERNET = 25e9 / 8  # bytes/s a node: a 25 Gbit/s card, common in rented machines; an assumption
REACHED = 0.8  # share of a line's speed that collectives reach; an assumption
BACKWARD = 2 / 3  # of a step: twice the products of the forward pass; an assumption
HIDDEN = 0.5  # of the backward pass, during which gradients already travel; an assumption


def scale(step_seconds: float, batch_size: int, parameters: int, steps: int, *,
          measured_batch: int | None = None, gpus: Sequence[int] = (1, 2, 4, 8),
          per_node: int = 8, classes: int = 0, embedding_size: int = 512, gathered: int = 0,
          read: float | None = None, activation_bytes: float = 0, momenta: int = 1,
          logits: int = 3, link: float = NVLINK, network: float = ETHERNET) -> list[dict]:
    """Hours and memory for each number of GPUs; a dict a row.

    step_seconds: of one step of `measured_batch` images (None: batch_size) on one GPU.
    batch_size: images a step, of all processes together.   parameters: of the student.   steps: of
    the run.   per_node: GPUs of a full node.   classes: rows of the margin head, 0 without one.
    gathered: (B, D) matrices a step brings together (EKD, RKD and others that look at pairs: 2).
    read: images/s a node can read, None: they are in memory.   activation_bytes: what an image
    leaves for the backward pass (`activation_bytes`).   momenta: 1 for SGD, 2 for AdamW.   logits:
    (B / W, C) float32 matrices alive at once; 0 for a head with `chunk`.   link, network: bytes/s
    within and between nodes.

    Keys: gpus, nodes, batch (of each), step_seconds, of it compute_seconds, exchange_seconds (what
    is not covered), gather_seconds; read_seconds (at the same time); bound ("compute", "exchange",
    "gather", "reading": the longest), images_per_second, efficiency (1: W times as fast as one),
    hours, memory_gb a GPU.   ValueError for a batch that does not divide.
    """
    D, P = embedding_size, parameters + classes * embedding_size
    image, rows = step_seconds / (measured_batch or batch_size), []
    for W in gpus:
        if W < 1 or batch_size % W:
            raise ValueError(f"a batch of {batch_size} does not divide among {W} GPUs")
        nodes, share, others = -(-W // per_node), batch_size // W, (W - 1) / W
        speed = REACHED * (link if nodes == 1 else network)
        compute = image * share
        ring = 2 * others * FLOAT * P / speed
        exchange = max(0.0, ring - HIDDEN * BACKWARD * compute)
        matrices = gathered + 2 if gathered else 0  # and the gradient back
        gather = others * FLOAT * batch_size * D * matrices / speed
        reading = batch_size / (nodes * read) if read else 0.0
        seconds = max(compute + exchange + gather, reading)
        parts = {"compute": compute, "exchange": exchange, "gather": gather,
                 "reading": reading if reading == seconds else 0.0}
        held = 2 + momenta + (W > 1)  # weights, gradients, momenta, DDP's buckets of gradients
        memory = (FLOAT * (held * P + logits * share * classes)
                  + activation_bytes * share)
        rows.append({
            "gpus": W, "nodes": nodes, "batch": share, "step_seconds": seconds,
            **{f"{name}_seconds": parts[name] for name in ("compute", "exchange", "gather")},
            "read_seconds": reading, "bound": max(parts, key=parts.get),
            "images_per_second": batch_size / seconds,
            "efficiency": image * batch_size / (W * seconds),
            "hours": steps * seconds / 3600, "memory_gb": memory / 1e9})
    return rows


def disk(parameters: int, *, classes: int = 0, embedding_size: int = 512, momenta: int = 1,
         keep: int = 2, validated: bool = True, images: int = 0, teacher_size: int = 0,
         half: bool = True) -> dict[str, float]:
    """Bytes a run leaves: checkpoint (one), checkpoints (with the one being written), students,
    cache (a teacher's embeddings of `images` and their mirrors, float16 or float32), total."""
    P = parameters + classes * embedding_size
    one = FLOAT * P * (1 + momenta)
    parts = {"checkpoints": (keep + 1) * one if keep else 0,
             "students": FLOAT * parameters * (2 if validated else 1),
             "cache": images * 2 * teacher_size * (2 if half else FLOAT)}
    return {"checkpoint": one, **parts, "total": sum(parts.values())}


def activation_bytes(network: nn.Module, images: Tensor) -> float:
    """Bytes an image leaves behind for the backward pass, counted by autograd's own hooks.

    images: (B, 3, H, W) floats on the network's device; B of 8 or more, so that what does not grow
    with the batch counts little. Weights do not count; under autocast their half-precision copies
    do, as they do in memory. The network's running statistics do not change.
    """
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    before, held = network.training, {k: v.clone() for k, v in network.named_buffers()}
    network.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(images)  # alive until all is counted, or an address may come again
    network.train(before)
    with torch.no_grad():
        for name, value in network.named_buffers():
            value.copy_(held[name])
    del output
    return sum(seen.values()) / len(images)
