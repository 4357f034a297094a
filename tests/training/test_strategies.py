"""Strategies that would train every rank by itself are refused by name, before anything is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)

from project.__main__ import main
from project.training.sharding import FullySharded
from project.training.strategies import check_strategy
from tests.helpers import ROOT
from tests.helpers.tiny_module import make_module, train

REMEDY = r"--trainer\.strategy .*set it to auto, to ddp or a variant of ddp, or to fsdp2"


class OwnDDP(DDPStrategy):
    """What a user may derive."""


@pytest.mark.parametrize(
    "strategy",
    ["auto", "ddp", "DDP", "fsdp2", "ddp_spawn", "ddp_find_unused_parameters_true", DDPStrategy(), OwnDDP(),
     FullySharded(), SingleDeviceStrategy("cpu")],
)  # fmt: skip
def test_what_averages_gradients_is_taken(strategy: object) -> None:
    check_strategy(strategy)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("ddpp", "there is no strategy of this name"),
        ("fsdp", "train weights of its own"),
        ("deepspeed_stage_2", "train weights of its own"),
        ("xla", "train weights of its own"),
        (ModelParallelStrategy(), "ModelParallelStrategy .*train weights of its own"),
    ],
)
def test_what_does_not_is_refused_with_what_works(strategy: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        check_strategy(strategy)
    assert refusal.match(REMEDY)


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_sharding_strategies_are_refused_as_objects(kind: type) -> None:
    """Made without their packages and devices."""
    with pytest.raises(ValueError, match=f"{kind.__name__} .*train weights of its own"):
        check_strategy(kind.__new__(kind))


@pytest.fixture
def _alone() -> Iterator[None]:
    """Leaves no process group behind, and no LOCAL_RANK: with it, processes of later tests wait for others to come."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_alone")
def test_it_holds_for_a_trainer_made_in_python() -> None:
    module = make_module()
    sharding = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    with pytest.raises(ValueError, match=r"ModelParallelStrategy .*train weights of its own"):
        train(module, updates=1, strategy=sharding, devices=1)
    assert module.policy is None, "nothing was loaded"


@pytest.mark.usefixtures("_alone")
def test_ddp_trains_by_the_flag_of_the_user() -> None:
    module = make_module()
    train(module, updates=1, strategy="ddp", devices=1)
    assert module.updates == 1


@pytest.mark.parametrize("command", ["fit", "bench"])
def test_the_command_line_refuses_before_it_loads(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text("trainer:\n  accelerator: cpu\n  strategy: fsdp\n")
    files = [f"--config={ROOT}/configs/shapes/demo.yaml", f"--config={tmp_path}/wrong.yaml"]
    assert main([command, *files]) != 0
    said = capsys.readouterr().err
    assert re.search(rf"wrong.yaml:3: {REMEDY}", said), said
