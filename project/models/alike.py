"""Rows that are equal by construction: what they have in common is computed once.

Rows are known to be equal by what they are made of (keys of noise, ids of tokens), never by comparing numbers. Shape
suffixes: project/trajectory.py; here `M` counts the rows that differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Which of R rows are equal.

    Attributes:
        first_M: int64, the first row of each kind.
        kind_R: int64, the kind of each row, as a place in `first_M`.
    """

    first_M: Tensor
    kind_R: Tensor

    @classmethod
    def by(cls, labels: Sequence[Hashable], device: torch.device) -> Alike | None:
        """Rows with equal labels are equal; None if all differ."""
        first: dict[Hashable, int] = {}
        for row, label in enumerate(labels):
            first.setdefault(label, row)
        if len(first) == len(labels):
            return None
        kinds = {label: kind for kind, label in enumerate(first)}
        return cls(
            first_M=torch.tensor(list(first.values()), device=device),
            kind_R=torch.tensor([kinds[label] for label in labels], device=device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeStates:
    """Rows whose first state and context are equal, by branch of guidance.

    Attributes:
        main: as the main context goes; None = all differ.
        free: as the contexts without text or picture go, which more rows have in common.
    """

    main: Alike | None
    free: Alike | None

    @classmethod
    def by(cls, main: Sequence[Hashable], free: Sequence[Hashable], device: torch.device) -> AlikeStates | None:
        """Rows with equal labels are equal; None if nothing is."""
        alike = cls(main=Alike.by(main, device), free=Alike.by(free, device))
        return None if alike.main is None and alike.free is None else alike
