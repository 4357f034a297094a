"""FSDP2 (`--trainer.strategy fsdp2`): weights, gradients and optimizer state are shared out over the ranks.

Replays gather the weights layer by layer, by the hooks of `fully_shard`; every rank makes the same number of them. How
many forwards a rollout makes depends on the texts that a rank writes. So it runs on whole weights (`gathered`), and its
forwards make no collective call. Checkpoints are those of a single process: each tensor is gathered by itself and
written whole, so they go on with any number of ranks and any strategy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from project.models.base import UnifiedModel


def shard(model: UnifiedModel, mesh: DeviceMesh | None) -> None:
    """Share out the weights of a model over a mesh of ranks, layer by layer; in place. Nothing happens without a mesh.

    The model has its adapters already, and what is trained is chosen.
    """
    if mesh is None:
        return
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole weights on every rank, for forwards without gradient whose number is a rank's own affair.

    Entering is a collective call. Nothing happens to a model that is not sharded.
    """
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    if parts:
        # The outermost part must be the first that is set up; only its forward would see to that.
        parts[0]._get_fsdp_state()._lazy_init()
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for place, part in enumerate(parts):
            part.set_reshard_after_forward(place > 0, recurse=False)
            part.reshard()


def whole(value: Any) -> Any:
    """A tensor that is shared out, as one on the CPU (a collective call); anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every rank has, shared out as another is; without communication."""
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def kept_by_rank_zero(value: Any) -> Any:
    """As `whole`, but None on every other rank: many ranks of a node would hold as many copies of the state."""
    if not isinstance(value, DTensor):
        return value
    full = value.full_tensor()
    return full.cpu() if distributed.get_rank() == 0 else None


def _placed_state(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of an optimizer's state; numbers are copied, or each would keep the whole file in memory."""
    return placed(value, parameter) if value.ndim else value.clone()


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all ranks, with the checkpoints of a single process."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Trained parameters, whole, on rank 0. A collective call."""
        assert self.lightning_module is not None
        found = {
            name: kept_by_rank_zero(parameter.detach())
            for name, parameter in self.lightning_module.named_parameters()
            if parameter.requires_grad
        }
        return found if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole, on rank 0. A collective call."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state = inner.state_dict()
        own = {
            number: {name: kept_by_rank_zero(v) for name, v in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": own} if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(
            Path(self.broadcast(checkpoint_path)), map_location="cpu", mmap=True, weights_only=True
        )
        return loaded

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = dict(self.lightning_module.named_parameters())
        for name, tensor in checkpoint["state_dict"].items():
            own[name].copy_(placed(tensor.to(own[name].dtype), own[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shared = {
                number: {
                    name: _placed_state(value, parameters[number]) if torch.is_tensor(value) else value
                    for name, value in values.items()
                }
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shared})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        path = self.broadcast(filepath)
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path)


StrategyRegistry.register("fsdp2", FullySharded, description="Weights, gradients and optimizer state are shared out.")
