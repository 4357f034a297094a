"""Which colour an object has: CLIP as the official scorer asks it, with transformers.

Shape suffixes: N detections, C colours, T templates, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.benchmarks.geneval.detections import Detection
from project.benchmarks.geneval.items import COLORS
from project.judges.first_token import device_of
from project.models.clip import REMEDY, LoadedCLIP, load_clip, normalized

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = 0x99
"""Level of all three channels around an object: #999."""
KNOWN_COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
"""Plain pictures of the self-test."""


class ColorClassifier(ABC):
    """Names the colours of objects."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What names the colours, for the record of a result."""

    @abstractmethod
    def preflight(self) -> None:
        """Checks, before pictures are drawn, that it works. Raises ValueError or FileNotFoundError with the remedy."""

    @abstractmethod
    def colors(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """One of `items.COLORS` for each detection in a picture, uint8 [height, width, 3]."""


class CLIPColors(ColorClassifier):
    """Zero-shot classification by CLIP: the colour whose texts are most similar to the object.

    The object is cut out, see `cut_out`. Of each colour there are three texts, `TEMPLATES`; their normalized embeddings
    are averaged and normalized again. The colour with the greatest cosine similarity is taken.

    The weights are read when the classifier is first needed (in `preflight`).

    Args:
        model: folder or hub id of a CLIP checkpoint of transformers.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
    """

    def __init__(self, model: str = "openai/clip-vit-large-patch14", device: str | None = None) -> None:
        self.model = model
        self.device = device
        self._loaded: LoadedCLIP | None = None
        self._texts: dict[str, Tensor] = {}

    @property
    def label(self) -> str:
        return f"clip:{self.model}"

    def preflight(self) -> None:
        """Loads the checkpoint and shows it plain red and plain blue.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is of another architecture, or names these colours otherwise.
        """
        for color, rgb in KNOWN_COLORS.items():
            plain = np.full((64, 64, 3), rgb, dtype=np.uint8)
            (named,) = self.colors(plain, [Detection(class_name="cup", box=(0.0, 0.0, 64.0, 64.0), score=1.0)])
            if named != color:
                raise ValueError(
                    f"CLIP {self.model} calls a plain {color} picture {named}: its weights are not those of a trained "
                    f"CLIP, {REMEDY}"
                )

    @torch.inference_mode()
    def colors(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        if not detections:
            return []
        clip = self._ready()
        seen_ND = clip.of_pictures([cut_out(image, detection) for detection in detections])
        texts_NCD = torch.stack([self._of_class(detection.class_name) for detection in detections])
        similarity_NC = torch.einsum("nd,ncd->nc", seen_ND, texts_NCD)
        return [COLORS[best] for best in similarity_NC.argmax(dim=-1).tolist()]

    def _of_class(self, name: str) -> Tensor:
        """Embeddings [C, D] of the colours of a class."""
        if name not in self._texts:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            text_CTD = self._ready().of_texts(texts).unflatten(0, (len(COLORS), len(TEMPLATES)))
            self._texts[name] = normalized(text_CTD.mean(dim=1))
        return self._texts[name]

    def _ready(self) -> LoadedCLIP:
        if self._loaded is None:
            self._loaded = load_clip(self.model, device_of(self.device))
        return self._loaded


def cut_out(image: np.ndarray, detection: Detection) -> Image.Image:
    """An object of a picture, uint8 [height, width, 3]: grey (#999) where its mask is not, cut to its box.

    Without a mask the picture's own background stays. A box is cut at whole pixels, at least one wide and high.
    """
    shown = image
    if detection.mask_HW is not None:
        shown = np.where(detection.mask_HW[..., None], image, np.uint8(BACKGROUND))
    x0, y0, x1, y1 = map(round, detection.box)
    return Image.fromarray(shown).crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
