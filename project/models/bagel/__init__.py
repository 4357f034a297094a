"""BAGEL (ByteDance-Seed/BAGEL-7B-MoT) and its embedded miniature: one class, one layout, one loader."""

from project.models.bagel.config import BagelConfig
from project.models.bagel.model import Bagel

__all__ = ["Bagel", "BagelConfig"]
