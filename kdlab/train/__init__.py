"""Training: a config, the one loop, and the history it leaves."""

from kdlab.train.config import TrainConfig, load_config
from kdlab.train.log import History
from kdlab.train.loop import train

__all__ = ["History", "TrainConfig", "load_config", "train"]
