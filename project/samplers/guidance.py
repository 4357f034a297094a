"""Classifier-free guidance of the velocity, by the text and by an input image, with a norm that is kept in bounds.

Source: BAGEL (arXiv 2505.14683), its published inference code's formulas. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """How far a velocity is pushed away from the velocities without text and without image.

    Args:
        text: scale of the text guidance; at 1 or below all guidance is off.
        image: scale of the image guidance (editing); off at 1 or below.
        interval: (lo, hi): guidance acts at flow times lo < sigma <= hi.
        renorm: guidance must not raise the norm of the velocity: of the whole image (`global`), of each latent token
            (`channel`), or of each latent token after the text guidance only (`text_channel`).
        renorm_min: smallest factor of that correction, in [0, 1].

    Raises:
        ValueError: if the interval is empty, the renorm unknown or renorm_min outside [0, 1].
    """

    text: float = 4.0
    image: float = 1.0
    interval: tuple[float, float] = (0.4, 1.0)
    renorm: Literal["global", "channel", "text_channel"] = "global"
    renorm_min: float = 0.0

    def __post_init__(self) -> None:
        if self.interval[0] >= self.interval[1]:
            raise ValueError(f"interval={self.interval}: guidance acts at lo < sigma <= hi, give lo below hi")
        if self.renorm not in _GUIDED:
            raise ValueError(f"renorm={self.renorm!r} is unknown: choose one of {', '.join(_GUIDED)}")
        if not 0 <= self.renorm_min <= 1:
            raise ValueError(f"renorm_min={self.renorm_min}: it is the least factor on the norm, give 0 to 1")

    def active(self, sigma: float) -> bool:
        """Whether guidance acts at a flow time (an fp32 number, as in a sampler's schedule)."""
        lo, hi = torch.tensor(self.interval, dtype=torch.float32).tolist()
        return self.text > 1 and lo < sigma <= hi


def guide(v_RLD: Tensor, text_free_RLD: Tensor, image_free_RLD: Tensor | None, guidance: Guidance) -> Tensor:
    """Guided velocity [..., L, D], fp32; a norm is never taken over more than one image.

    Args:
        v_RLD: velocity with everything known.
        text_free_RLD: velocity without the input text.
        image_free_RLD: velocity without the input image; needed if `guidance.image` > 1.
        guidance: scales and renorm; its interval is up to the caller (`Guidance.active`).

    Raises:
        ValueError: if image guidance is on and there is no image-free velocity.
    """
    v = v_RLD.float()
    if guidance.text <= 1:
        return v
    image_free = None
    if guidance.image > 1:
        if image_free_RLD is None:
            raise ValueError(
                f"guidance.image={guidance.image} needs the velocity without the input image: set guidance.image to 1 "
                "for tasks that have none"
            )
        image_free = image_free_RLD.float()
    text_free = text_free_RLD.float()
    return _GUIDED[guidance.renorm](v, text_free + guidance.text * (v - text_free), image_free, guidance)


def _global(v: Tensor, u: Tensor, image_free: Tensor | None, guidance: Guidance) -> Tensor:
    return _renormed(v, _image_guided(u, image_free, guidance), (-2, -1), guidance.renorm_min)


def _channel(v: Tensor, u: Tensor, image_free: Tensor | None, guidance: Guidance) -> Tensor:
    return _renormed(v, _image_guided(u, image_free, guidance), (-1,), guidance.renorm_min)


def _text_channel(v: Tensor, u: Tensor, image_free: Tensor | None, guidance: Guidance) -> Tensor:
    return _image_guided(_renormed(v, u, (-1,), guidance.renorm_min), image_free, guidance)


_GUIDED: Mapping[str, Callable[[Tensor, Tensor, Tensor | None, Guidance], Tensor]] = {
    "global": _global,
    "channel": _channel,
    "text_channel": _text_channel,
}


def _image_guided(u: Tensor, image_free: Tensor | None, guidance: Guidance) -> Tensor:
    return u if image_free is None else image_free + guidance.image * (u - image_free)


def _renormed(v: Tensor, w: Tensor, dims: tuple[int, ...], least: float) -> Tensor:
    """w, scaled so that its norm over `dims` is at most that of v (and by `least` at the least)."""
    norm_v = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    norm_w = torch.linalg.vector_norm(w, dim=dims, keepdim=True)
    return w * (norm_v / (norm_w + 1e-8)).clamp(least, 1.0)


UNGUIDED = Guidance(text=1.0)
"""The velocity as it is."""
