"""What is differentiated: the terms of all losses, and each one's share of the gradient."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from kdlab.distributed import everywhere, processes
from kdlab.outputs import Output, Targets
from kdlab.train.config import TrainConfig


def make_objective(student: nn.Module, losses: nn.ModuleDict, config: TrainConfig) -> nn.Module:
    """The `Objective` of a run, compiled where it says so, shared where there are processes."""
    if config.compile:
        student.compile()  # in place: names and class stay
        if config.share_every:  # several backward passes want what the first would overwrite
            torch._functorch.config.donated_buffer = False
    objective = Objective(student, losses, config)
    if processes() == 1:
        return objective
    # A term may leave parameters out in some step, so DistributedDataParallel is to look for them;
    # where it finds none it complains, past Python's warnings. This one it always finds.
    objective.never_used = nn.Parameter(torch.zeros((), device=next(student.parameters()).device))
    # BatchNorm's running statistics stay each process's own (insightface does so): they do not
    # touch training, and process 0's are saved.
    with warnings.catch_warnings():  # torch 2.13 has a new name for it, which 2.6 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            objective, broadcast_buffers=False, find_unused_parameters=True)


class Objective(nn.Module):
    """Student and losses as one module, through which DistributedDataParallel sees both."""

    def __init__(self, student: nn.Module, losses: nn.ModuleDict, config: TrainConfig):
        super().__init__()
        self.student, self.losses, self.config = student, losses, config

    def forward(self, images: Tensor, teacher: Output | None, targets: Targets):
        """name/term -> scalar; the student under autocast where asked, the losses in float32."""
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with half(images.device, self.config.precision):
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
