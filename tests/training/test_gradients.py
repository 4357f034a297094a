"""Gradients of several ranks, averaged in real process groups."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from project.training import gradients


def averaged(rank, size, file, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    gradients.BUCKET = 4  # several buckets, some with several gradients
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (1,), (2,), (3,))]
    parameters[0].grad = torch.full((2, 3), float(rank))
    parameters[1].grad = torch.full((1,), 2.0 * rank)
    if rank == 1:
        parameters[2].grad = torch.tensor([3.0, 6.0])  # only this rank has one; nobody has one for the last
    gradients.average_over_ranks(parameters)
    torch.save([p.grad for p in parameters], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size", [3])
def test_every_rank_has_the_mean_and_none_where_nobody_has_one(tmp_path, size):
    mp.spawn(averaged, (size, str(tmp_path / "meeting"), str(tmp_path)), nprocs=size)
    for rank in range(size):
        first, second, third, last = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(first, torch.full((2, 3), 1.0))
        torch.testing.assert_close(second, torch.tensor([2.0]))
        torch.testing.assert_close(third, torch.tensor([1.0, 2.0]))
        assert last is None
