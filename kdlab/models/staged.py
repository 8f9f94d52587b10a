"""The shape every network here has: a stem, stages that each leave a map, a head."""

from torch import Tensor, nn

from ..outputs import Output


class Staged(nn.Module):
    """stem -> stages -> head, so that a loss can look at, or enter, any stage.

    A network sets `stem`, `head`, `stages` (nn.ModuleList), `channels` (of each stage's map),
    `embedding_size` (D) and `input_size` (side in pixels) in its constructor; one that also names
    classes sets `classifier`, embedding -> logits.
    """

    stages: nn.ModuleList
    channels: tuple[int, ...]
    embedding_size: int
    input_size: int

    def __init__(self):
        super().__init__()
        self.classifier = None  # not a class attribute: that would hide a module of this name

    def forward(self, x: Tensor) -> Output:
        """(B, 3, S, S) float, normalised -> Output with one map per stage.

        ValueError where x is not a batch of pictures of this network's size.
        """
        if x.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(
                f"this network takes (B, 3, {self.input_size}, {self.input_size}), got "
                f"{tuple(x.shape)}; resize the pictures first")
        return self.tail(self.stem(x), 0)

    def tail(self, features: Tensor, stage: int) -> Output:
        """Everything after a stage, counted from 1 (0: everything after the stem).

        features: what that stage leaves, (B, C, H, W).   Returns Output; its `features` are the
        maps of the later stages. In eval mode tail(out.features[i - 1], i) is the rest of forward.
        """
        if not 0 <= stage <= len(self.stages):
            raise ValueError(f"stage must be 0 to {len(self.stages)}, got {stage}")
        if stage and features.shape[1] != self.channels[stage - 1]:
            raise ValueError(f"stage {stage} leaves {self.channels[stage - 1]} channels, "
                             f"got a map with {features.shape[1]}")
        maps = []
        for module in self.stages[stage:]:
            features = module(features)
            maps.append(features)
        embedding = self.head(features)
        logits = None if self.classifier is None else self.classifier(embedding)
        return Output(embedding, logits, tuple(maps))
