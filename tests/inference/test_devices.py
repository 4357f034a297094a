"""Which devices a command means, on a machine with any number of GPUs."""

from __future__ import annotations

import pytest
import torch

from project.inference.devices import chosen_devices, usual_dtype
from project.inference.pipeline import UnifiedPipeline


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine had that many, and the second were in use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.mark.parametrize(
    ("gpus", "names", "expected"),
    [
        (0, None, ["cpu"]),
        (2, None, ["cuda:1"]),
        (2, "cpu", ["cpu"]),
        (2, "cuda", ["cuda:1"]),
        (2, "cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        (2, "all", ["cuda:0", "cuda:1"]),
        (0, "cpu, cpu", ["cpu", "cpu"]),
    ],
    indirect=["gpus"],
)
def test_devices_by_name(gpus: None, names: str | None, expected: list[str]) -> None:
    assert [str(device) for device in chosen_devices(names)] == expected


@pytest.mark.parametrize(
    ("gpus", "names", "message"),
    [
        (2, "cuda:2", r"'cuda:2': this machine has 2 GPU\(s\), from cuda:0 to cuda:1"),
        (0, "cuda", "no GPU that torch can use"),
        (0, "all", "no GPU that torch can use"),
        (0, "gpu", "'gpu' is none: give cpu, cuda:0"),
        (0, "cpu,", "'' is none"),
        (0, "meta", "holds no numbers"),
    ],
    indirect=["gpus"],
)
def test_devices_that_are_not_there(gpus: None, names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_devices(names)


def test_a_gpu_holds_bf16_and_a_cpu_fp32() -> None:
    assert usual_dtype(torch.device("cuda:1")) == torch.bfloat16
    assert usual_dtype(torch.device("cpu")) == torch.float32


def test_a_pipeline_has_one_device() -> None:
    with pytest.raises(ValueError, match=r"'cpu,cpu' names 2 devices: give one"):
        UnifiedPipeline.from_pretrained("data/shapes/umm", device="cpu,cpu")
