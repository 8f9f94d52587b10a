"""Rendered faces with known truth, from the CC0 MakeHuman head."""

from kdlab.world.faces import FaceWorld
from kdlab.world.nuisance import MEANING, NUISANCE, RANGES
from kdlab.world.portrait import portrait
from kdlab.world.protocols import PROTOCOLS, Protocol, counts, protocol
from kdlab.world.rendered import rendered

__all__ = ["MEANING", "NUISANCE", "PROTOCOLS", "RANGES", "FaceWorld", "Protocol", "counts",
           "portrait", "protocol", "rendered"]
