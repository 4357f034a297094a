"""The reference policy, which KL terms keep the policy near."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from project.models.base import UnifiedModel
from project.models.lora import adapters_at_start, adapters_off
from project.trajectory import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A frozen copy of the policy, or the policy itself with other adapters.

    Attributes:
        frozen: the copy; None = the policy without its adapters (`base`) or with those of the `start`.
        adapters: which of the two.
    """

    frozen: UnifiedModel | None = None
    adapters: Literal["base", "start"] = "base"

    @contextmanager
    def of(self, policy: UnifiedModel) -> Iterator[UnifiedModel]:
        """The reference, as long as the block lasts."""
        if self.frozen is not None:
            yield self.frozen.to(policy.device)
            return
        with adapters_off(policy) if self.adapters == "base" else adapters_at_start(policy):
            yield policy

    @torch.no_grad()
    def replay(self, policy: UnifiedModel, replay_by: Callable[[UnifiedModel], Replay]) -> Replay:
        """What `replay_by` makes of the reference; its velocity is the reference's at any later time."""
        with self.of(policy) as reference:
            replay = replay_by(reference)
        of_reference = replay.velocity
        assert of_reference is not None

        @torch.no_grad()
        def velocity(x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True) -> Tensor:
            with self.of(policy):  # an objective asks later
                return of_reference(x_RKLD, sigma_K, guided=guided)

        return dataclasses.replace(replay, velocity=velocity)
