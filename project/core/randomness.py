"""Randomness keyed by what is drawn: (run seed, update, prompt, occurrence, sample, round, stream) -> numbers.

Every draw is made per sample on the CPU from a hash of its key, so it depends neither on ranks and batch
positions nor on what was drawn before; a resumed run draws the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from project.trajectory import SampleKey


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by a 64-bit blake2b hash of `key`."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _generator(key: SampleKey, stream: str, round: int) -> torch.Generator:
    return keyed_generator(key.seed, key.update, key.prompt, key.occurrence, key.sample, round, stream)


def normal(keys: Sequence[SampleKey], stream: str, *shape: int, round: int = 0) -> Tensor:
    """Standard normal noise, fp32 [N, *shape]: one independent draw per key."""
    drawn = [torch.randn(*shape, generator=_generator(key, stream, round)) for key in keys]
    return torch.stack(drawn) if drawn else torch.zeros(0, *shape)


def uniform(keys: Sequence[SampleKey], stream: str, *shape: int, round: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), fp32 [N, *shape]: one independent draw per key."""
    return torch.stack([torch.rand(*shape, generator=_generator(key, stream, round)) for key in keys])
