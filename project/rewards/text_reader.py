"""Who reads the text in pictures."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

EXTRA = "pip install 'alphagrpo[ocr]'"


class TextReader(ABC):
    """Reads the text in pictures."""

    @abstractmethod
    def preflight(self) -> None:
        """Check, before any training, that it can read. Raises ValueError with the remedy if it cannot."""

    @abstractmethod
    def read(self, images: Sequence[np.ndarray]) -> list[list[str]]:
        """Per picture, uint8 [height, width, 3], the lines of text in it, from top to bottom; none = no text."""


class RapidOCRReader(TextReader):
    """PP-OCR by the package rapidocr, whose wheel holds the networks; it reads English and Chinese, on the CPU.

    Args:
        minimum_score: a line that is read with less certainty than this is left out.

    Raises:
        ValueError: for a certainty outside [0, 1].
    """

    def __init__(self, minimum_score: float = 0.5) -> None:
        if not 0 <= minimum_score <= 1:
            raise ValueError(f"minimum_score={minimum_score}: give a certainty from 0 to 1")
        self.minimum_score = minimum_score
        self._engine: Any = None

    def preflight(self) -> None:
        """Reads an empty picture. Raises ValueError if the packages are not installed."""
        self.read([np.full((64, 64, 3), 255, dtype=np.uint8)])

    def read(self, images: Sequence[np.ndarray]) -> list[list[str]]:
        engine = self._ready()
        lines = []
        for image in images:
            # It takes arrays in OpenCV's order of channels: blue, green, red.
            found = engine(np.ascontiguousarray(image[..., ::-1]), text_score=self.minimum_score)
            lines.append([str(text) for text in found.txts or ()])
        return lines

    def _ready(self) -> Any:
        if self._engine is None:
            for package in ("rapidocr", "onnxruntime"):
                try:
                    importlib.import_module(package)
                except ImportError as error:
                    raise ValueError(
                        f"reading text in pictures needs the package {package}, which cannot be imported ({error}): "
                        f"{EXTRA}"
                    ) from error
            from rapidocr import RapidOCR

            self._engine = RapidOCR(params={"Global.log_level": "error"})
        return self._engine
