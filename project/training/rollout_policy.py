"""The policy of the rollout, kept while optimizer steps on the rollout change the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from project.models.base import UnifiedModel
from project.models.lora import ROLLOUT, adapters_as_kept, has_adapters, keep_adapters, remember_adapters
from project.trajectory import Replay, Velocity


class RolloutPolicy:
    """A frozen copy of what is trained: of the adapters, within the policy, or of the whole policy.

    It is made anew at every rollout, so a checkpoint between two updates need not hold it.
    """

    def __init__(self, policy: UnifiedModel) -> None:
        self._copy: UnifiedModel | None = None
        if has_adapters(policy):
            keep_adapters(policy, ROLLOUT)
        else:
            self._copy = copy.deepcopy(policy).requires_grad_(False).eval()

    @property
    def models(self) -> tuple[UnifiedModel, ...]:
        """Models beside the policy, whose weights may be shared out over the ranks."""
        return () if self._copy is None else (self._copy,)

    @torch.no_grad()
    def remember(self, policy: UnifiedModel) -> None:
        """Take over the trained weights as they are now."""
        if self._copy is None:
            remember_adapters(policy, ROLLOUT)
            return
        kept = dict(self._copy.to(policy.device).named_parameters())
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                kept[name].copy_(parameter)

    @contextmanager
    def of(self, policy: UnifiedModel) -> Iterator[UnifiedModel]:
        """The policy of the rollout, as long as the block lasts."""
        if self._copy is not None:
            yield self._copy
            return
        with adapters_as_kept(policy, ROLLOUT):
            yield policy

    @torch.no_grad()
    def velocity(self, policy: UnifiedModel, replay_by: Callable[[UnifiedModel], Replay]) -> Velocity:
        """The velocity of the pictures that `replay_by` replays, at any later time, by the rollout's weights."""
        with self.of(policy) as rollout:
            of_rollout = replay_by(rollout).velocity
        assert of_rollout is not None

        @torch.no_grad()
        def velocity(x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True) -> Tensor:
            with self.of(policy):  # an objective asks later
                return of_rollout(x_RKLD, sigma_K, guided=guided)

        return velocity
