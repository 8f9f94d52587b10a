"""AD: adversarial debiasing, a baseline of MFD; and how MFD's other baselines are put together.

The form compared in Jung, Lee, Park, Moon, "Fair Feature Distillation for Visual Recognition",
CVPR 2021 (its supplement and released code); gradient reversal: Ganin et al., "Domain-Adversarial
Training of Neural Networks", JMLR 2016.

Idea: for each class a small network, the adversary, learns to tell the group from the student's
logits. The gradient that reaches the student is turned round, so the student learns logits from
which the group cannot be told. Both take one step at a time, together. Runs beside `CrossEntropy`.

Symbols: z student logits (B, C); y labels, a groups (B,); h_c adversary of class c, logits ->
hidden -> G group scores; lambda `weight`.
Choices: one adversary a class, two layers, ReLU, hidden = 32: released code; lr = 3e-3: the
supplement ("a commonly used value"; the code's default is 3e-4); lambda has no default, the
supplement searched it: 0.001 CIFAR-10S, 0.01 UTKFace, 10 CelebA.
Differences: the main text was not at hand, so lines name a formula instead of an equation. The
released class that builds the adversary stops with a TypeError; here it is the working form of the
commit before. There each adversary has an Adam of its own, without weight decay, slowed when its
loss on the test set stalls; here all are one group of the run's optimiser, with their own rate and
no weight decay, on the run's schedule (choose "adamw" for the published setting). Two that step
at once descend no common objective: runs swing, some collapse, as one behind the published AD row
for CIFAR-10S (62.49 +- 30.32 %) seems to have done.

The rows of MFD's tables, as losses of one run (SS: batches from `GroupBalancedSampler`; HKD
anneals: TrainConfig(schedules={"kd.weight": [4, 1]}); T and lambda: the supplement, table 1):

    HKD               {"ce": CrossEntropy(), "kd": HintonKD(T)}
    FitNet, 1st run   {"hint": FitNet()}, half the epochs, then HKD on the same student
    AT, NST           {"ce": CrossEntropy(), "at": AttentionTransfer(lambda)}, or "nst": NST(lambda)
    SS                {"ce": CrossEntropy()}                                       SS batches
    SS+HKD, SS+FitNet as HKD and FitNet                                            SS batches
    AD                {"ce": CrossEntropy(), "ad": AdversarialDebiasing(C, G, lambda)}
    AD+HKD            AD's two and "kd": HintonKD(T)
    AD+FitNet         AD's two, "kd": HintonKD(T) and "hint": FitNet(), one stage
    MFD               {"ce": CrossEntropy(), "mfd": MFD(lambda)}                   SS batches

Of ResNet-18 and ShuffleNet these take the last map. Of cifar_cnn the release takes the last map for
AT, the embedding for the hint and MFD: FitNet(layer="embedding", half=True) and
MFD(lambda, layer="embedding").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inputs import check_batch, check_groups
from ..outputs import Output, Targets


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.factor * grad, None


def reverse_gradient(x: Tensor, factor: float) -> Tensor:
    """x going forward; going back, the gradient times -factor."""
    return _Reversal.apply(x, factor)


def adversary_loss(scores: Tensor, groups: Tensor, labels: Tensor) -> Tensor:
    """Sum over the classes present of the mean cross-entropy of their rows with their groups.

    scores: (B, G), each row from the adversary of its class; groups, labels: (B,).
    Returns a scalar: L_adv = sum_c mean_{i: y_i = c} -log softmax(h_c(z_i))_{a_i}.
    """
    rows_of_class = labels.bincount()[labels]
    return (F.cross_entropy(scores, groups, reduction="none") / rows_of_class).sum()  # L_adv


class AdversarialDebiasing(nn.Module):
    """One adversary for each class, `adversaries`; its term is "adversary".

    num_classes: C, the width of the student's logits.   num_groups: G, 2 or more.
    weight: lambda, 0 or more, scales the student's gradient only; 0 leaves the student alone and
    shows what can be read off it.   lr: the adversaries' peak rate.   hidden: units.
    The term is the adversaries' own cross-entropy, from 0 up, not scaled: it enters the logged
    total with a plus although the student climbs it, so judge a run by its terms, not the total.
    An adversary whose class is not in the batch gets a gradient of 0. Asks for no teacher, uses
    every row. ValueError for missing logits or another number of them, for missing groups, for
    labels or groups outside, for logits that are not finite.
    """

    def __init__(self, num_classes: int, num_groups: int, weight: float, lr: float = 3e-3,
                 hidden: int = 32):
        super().__init__()
        for name, value, least in (("num_classes", num_classes, 1), ("num_groups", num_groups, 2),
                                   ("hidden", hidden, 1)):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}; the gradient is reversed "
                             "already")
        if not lr > 0:
            raise ValueError(f"lr must be above 0, not {lr}")
        self.num_classes, self.num_groups = num_classes, num_groups
        self.weight, self.lr = weight, lr
        self.adversaries = nn.ModuleList(
            nn.Sequential(nn.Linear(num_classes, hidden), nn.ReLU(), nn.Linear(hidden, num_groups))
            for _ in range(num_classes))
        self._last = None  # share told right, and by the most frequent group; for report()

    def param_groups(self, config) -> list[dict]:
        """The adversaries as one group of the run's optimiser, at their own rate, not decayed."""
        return [{"params": list(self.parameters()), "lr": self.lr, "weight_decay": 0.0}]

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the adversary of each row's class makes of it: (B, C), (B,) -> (B, G)."""
        logits = logits.to(self.adversaries[0][0].weight.dtype)  # float32, unless told otherwise
        order = labels.argsort(stable=True)
        rows = logits[order].split(labels.bincount(minlength=self.num_classes).tolist())
        with torch.autocast(logits.device.type, enabled=False):
            scores = torch.cat([adversary(part) for adversary, part in
                                zip(self.adversaries, rows, strict=True)])
        return scores[order.argsort()]

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        logits, labels = student.logits, targets.labels
        if logits is None:
            raise ValueError("AdversarialDebiasing reads the student's logits and it has none; use "
                             "a network with a classifier")
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"AdversarialDebiasing was built for {self.num_classes} classes, the "
                             f"student has {logits.shape[1]} logits; set num_classes")
        check_batch(logits, labels, self.num_classes, what="logits")
        groups = check_groups(targets, "AdversarialDebiasing", self.num_groups)
        scores = self.scores(reverse_gradient(logits, self.weight), labels)
        if self.training:
            cells = (labels * self.num_groups + groups).bincount(
                minlength=self.num_classes * self.num_groups).view(-1, self.num_groups)
            self._last = ((scores.detach().argmax(1) == groups).float().mean(),
                          cells.amax(1).sum() / len(labels))
        return {"adversary": adversary_loss(scores, groups, labels)}

    def report(self) -> dict[str, float]:
        """Of the last training step, fractions: rows whose group the adversaries told, and rows
        that naming each class's most frequent group would have told."""
        if self._last is None:
            return {}
        accuracy, majority = self._last
        return {"accuracy": float(accuracy), "majority": float(majority)}
