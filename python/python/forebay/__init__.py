"""Metrics and events out of a training loop, without making it wait.

>>> from forebay import SummaryWriter  # instead of: from torch.utils.tensorboard import SummaryWriter
"""

from forebay import tensorboard
from forebay._forebay import __version__
from forebay.tensorboard import SummaryWriter

__all__ = ["SummaryWriter", "__version__", "tensorboard"]
