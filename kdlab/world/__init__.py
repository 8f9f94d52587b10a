"""Rendered faces with known truth, from the CC0 MakeHuman head."""

from kdlab.world.faces import FaceWorld
from kdlab.world.nuisance import NUISANCE
from kdlab.world.portrait import portrait
from kdlab.world.rendered import rendered

__all__ = ["NUISANCE", "FaceWorld", "portrait", "rendered"]
