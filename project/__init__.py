"""AlphaGRPO on PyTorch Lightning: GRPO on reasoning text and pictures together. See README.md."""

from project.core.exports import classes_of

__getattr__, __dir__ = classes_of(__name__, __path__, "*.py")
