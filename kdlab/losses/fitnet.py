"""FitNet: the student's hidden map imitates the teacher's.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015; the
default is the form of Jung, Lee, Park, Moon, "Fair Feature Distillation for Visual Recognition"
(MFD), CVPR 2021.

Idea: a hidden map of the teacher, the hint, is a regression target for a map of the student. A
learnable regressor bridges different channel numbers. FitNets trains on the hint alone first and
then on the soft labels; every public port for faces adds the hint to one joint run.

Symbols: u teacher's map, v student's map (B, C, H, W); r `regressor`, a 1x1 convolution.
Choices: last map, half of the mean over all entries, no regressor, weight 1: MFD's released code
(its CIFAR network has the hint at the embedding: layer="embedding", half=True). The regressor's
kind (1x1, no bias) is RKD's released code; torch's default start.
Differences: FitNets prints half the squared norm, a sum over elements: `reduction="sum"`. Its hint
is the teacher's middle layer, `layer=2` of four stages, with a regressor of any kernel.
RepDistiller and mdistiller: FitNet(100, 2, channels=..., half=False), mean without the half. TFace:
`layer="embedding"`, plain mean squared error of the embeddings without a regressor. The paper is
known to us through these codes, so no line here carries its equation numbers.

The two stages of FitNets and MFD are two calls of train(), the hint and then the rest; MFD gives
the hint half as many epochs on top, and anneals the soft labels from 4 to 1:

    train(config.model_copy(update={"epochs": 25}), student, {"fitnet": FitNet()}, batches, teacher)
    train(config.model_copy(update={"schedules": {"kd.weight": [4, 1]}}), student,
          {"ce": CrossEntropy(), "kd": HintonKD()}, batches, teacher)

Each call starts its own optimiser; MFD carries one Adam on. One joint run is all three losses at
once; one that moves from hint to soft labels has schedules={"fitnet.weight": [1, 0], ...}.
"""

from torch import Tensor, nn

from ..functional import full
from ..inputs import check_batch, check_layer, paired_maps, teacher_embedding
from ..outputs import Output, Targets


def hint(student: Tensor, teacher: Tensor, reduction: str = "mean", half: bool = True) -> Tensor:
    """FitNets' hint loss, 1/2 |u - r(v)|², of a map already regressed.

    student, teacher: (B, ...) alike.   reduction: over a sample's elements; mean over the batch.
    """
    student, teacher = full(student, teacher)
    squares = (student - teacher).square().flatten(1)  # (B, elements)
    value = (squares.sum(1) if reduction == "sum" else squares.mean(1)).mean()
    return value / 2 if half else value


class FitNet(nn.Module):
    """The hint, one term named after the layer: "last_map", "stage2", "embedding".

    layer: "last_map" | "embedding" | a stage's number, from 1.
    channels: (student's, teacher's) of that map, for a regressor, which is then a parameter of this
    loss; None: none, the channels must agree.   reduction: "mean" | "sum" over elements.
    half: None for True on maps and False on embeddings (TFace).
    ValueError without a teacher or its maps, for maps that differ in side or channels, for
    embeddings of two sizes or not finite.
    """

    def __init__(self, weight: float = 1, layer: str | int = "last_map", *,
                 channels: tuple[int, int] | None = None, reduction: str = "mean",
                 half: bool | None = None):
        super().__init__()
        check_layer(layer, ("last_map", "embedding"), "FitNet")
        if reduction not in ("mean", "sum"):
            raise ValueError(f'reduction must be "mean" or "sum", not {reduction!r}')
        if channels is not None and layer == "embedding":
            raise ValueError("FitNet compares embeddings as they are; channels, for a regressor, "
                             "go with a map")
        self.weight, self.layer, self.reduction = weight, layer, reduction
        self.half = layer != "embedding" if half is None else half
        self.needs = {"embedding"} if layer == "embedding" else {"features"}
        self.regressor = None if channels is None else nn.Conv2d(*channels, 1, bias=False)

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        if self.layer == "embedding":
            goal = teacher_embedding(student, teacher, "FitNet")
            check_batch(student.embedding, targets.labels)
            check_batch(goal, targets.labels, whose="teacher")
            pairs = {"embedding": (student.embedding, goal)}
        else:
            pairs = paired_maps(student, teacher, targets, self.layer, "FitNet")
        (name, (mine, theirs)), = pairs.items()
        if self.regressor is not None:
            self._check_channels(mine, theirs)
            mine = self.regressor(mine.to(self.regressor.weight.dtype))
        elif mine.shape != theirs.shape:
            raise ValueError(f"FitNet: the student's map has {mine.shape[1]} channels, the "
                             f"teacher's {theirs.shape[1]}; set channels=({mine.shape[1]}, "
                             f"{theirs.shape[1]}) for a regressor")
        return {name: self.weight * hint(mine, theirs, self.reduction, self.half)}

    def _check_channels(self, mine: Tensor, theirs: Tensor) -> None:
        got = mine.shape[1], theirs.shape[1]
        built = self.regressor.in_channels, self.regressor.out_channels
        if got != built:
            raise ValueError(f"FitNet's regressor was built for {built} channels, student and "
                             f"teacher, got maps of {got}; set channels")
