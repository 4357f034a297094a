"""The policy of the rollout, kept while optimizer steps change the weights: as it was, or an average of past ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from project.models.base import UnifiedModel
from project.models.lora import ROLLOUT, adapters_as_kept, has_adapters, keep_adapters, kept_adapters
from project.training.settings import RolloutAverage
from project.training.sharding import kept_by_rank_zero, placed
from project.trajectory import Replay, Velocity


class RolloutPolicy:
    """A frozen copy of what is trained: of the adapters, within the policy, or of the whole policy.

    Without `average` it is made anew at every rollout, so a checkpoint between two updates need not hold it. Without
    `policy` nothing is kept.
    """

    def __init__(self, policy: UnifiedModel | None = None, average: RolloutAverage | None = None) -> None:
        self.kept = policy is not None
        self.average = average
        self._copy: UnifiedModel | None = None
        self._begun = False
        """Whether there is an average already."""
        if policy is not None and has_adapters(policy):
            keep_adapters(policy, ROLLOUT)
        elif policy is not None:
            self._copy = copy.deepcopy(policy).requires_grad_(False).eval()

    @property
    def models(self) -> tuple[UnifiedModel, ...]:
        """Models beside the policy, whose weights may be shared out over the ranks."""
        return () if self._copy is None else (self._copy,)

    @torch.no_grad()
    def remember(self, policy: UnifiedModel, updates: int) -> None:
        """Take over the trained weights as they are after so many updates, or move the average towards them."""
        if not self.kept:
            return
        decay = self.average.decay(updates) if self.average is not None and self._begun else 0.0
        for kept, trained in self._weights(policy).values():
            kept.lerp_(trained.to(kept.dtype), 1 - decay)  # exactly the trained ones if decay is 0
        self._begun = True

    @contextmanager
    def of(self, policy: UnifiedModel) -> Iterator[UnifiedModel]:
        """The policy of the rollout, as long as the block lasts."""
        if self._copy is not None:
            yield self._copy
            return
        with adapters_as_kept(policy, ROLLOUT):
            yield policy

    def drawing(self, policy: UnifiedModel) -> AbstractContextManager[UnifiedModel]:
        """The policy that a rollout is drawn by: the policy itself, or the average."""
        return nullcontext(policy) if self.average is None else self.of(policy)

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

    def state(self, policy: UnifiedModel) -> dict[str, Any]:
        """The average under the key `rollout_policy`, whole, on rank 0; nothing if there is none. A collective call."""
        if self.average is None or not self._begun:
            return {}
        weights = self._weights(policy).items()
        return {"rollout_policy": {name: kept_by_rank_zero(kept.detach()) for name, (kept, _) in weights}}

    @torch.no_grad()
    def load(self, policy: UnifiedModel, checkpoint: Mapping[str, Any]) -> None:
        """The average of a checkpoint. Without one it begins with the weights of the next rollout.

        Raises ValueError if it is an average of other parameters.
        """
        state = checkpoint.get("rollout_policy")
        if self.average is None or state is None:
            return
        weights = self._weights(policy)
        if differing := sorted(weights.keys() ^ state.keys()):
            raise ValueError(
                f"the checkpoint's average of past policies holds other parameters than are trained: "
                f"{', '.join(differing[:3])}, ...: keep model.init_args.trainable as it was"
            )
        for name, (kept, _) in weights.items():
            kept.copy_(placed(state[name].to(kept.dtype), kept))
        self._begun = True

    def _weights(self, policy: UnifiedModel) -> dict[str, tuple[Tensor, Tensor]]:
        """What is kept and what is trained, by the names of the trained parameters."""
        if self._copy is None:
            return dict(kept_adapters(policy, ROLLOUT))
        kept = dict(self._copy.to(policy.device).named_parameters())
        return {name: (kept[name], trained) for name, trained in policy.named_parameters() if trained.requires_grad}
