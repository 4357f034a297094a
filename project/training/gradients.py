"""Gradients of several ranks become one: after all micro-batches of an update, in a few collective calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BUCKET = 2**24
"""Values that are sent together: 64 MB in fp32."""


@torch.no_grad()
def average_over_ranks(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks; a rank without one counts as zero.

    `DistributedDataParallel` does the same during the backward pass, but only if every parameter has a gradient in it:
    a picture without reasoning, or a rank whose samples were all dropped, has none for some. A parameter without a
    gradient on every rank keeps none, so that the optimizer leaves it alone.

    A collective call of all ranks of the default process group.
    """
    if not parameters:
        return
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    torch.distributed.all_reduce(has, op=torch.distributed.ReduceOp.MAX)
    bucket: list[Tensor] = []
    for parameter, some in zip(parameters, has.tolist(), strict=True):
        if not some:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (bucket[0].dtype != parameter.dtype or sum(map(torch.numel, bucket)) >= BUCKET):
            _average(bucket)
            bucket = []
        bucket.append(parameter.grad)
    if bucket:
        _average(bucket)


def _average(gradients: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
