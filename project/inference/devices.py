"""Which devices a model is put on, and in which type its weights are held there."""

from __future__ import annotations

import torch

ALL = "all"


def chosen_devices(names: str | None = None) -> list[torch.device]:
    """The devices that "cuda:0,cuda:1" or "cpu,cpu" names, or all GPUs for "all".

    For None it is one GPU, or the CPU if there is none.

    Raises ValueError for a device that is unknown or not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if names is None:
        return [torch.device("cuda", torch.cuda.current_device()) if gpus else torch.device("cpu")]
    if names == ALL:
        if not gpus:
            raise ValueError("device 'all': this machine has no GPU that torch can use: leave it out, or give cpu")
        return [torch.device("cuda", n) for n in range(gpus)]
    return [_device(name.strip(), gpus) for name in names.split(",")]


def one_device(name: torch.device | str | None = None) -> torch.device:
    """The device that is named, or chosen as by `chosen_devices`. Raises as that does, and for several devices."""
    chosen = chosen_devices(None if name is None else str(name))
    if len(chosen) > 1:
        raise ValueError(f"device {str(name)!r} names {len(chosen)} devices: give one")
    return chosen[0]


def usual_dtype(device: torch.device) -> torch.dtype:
    """Of weights that nothing is said about: bfloat16 on a GPU, float32 on a CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _device(name: str, gpus: int) -> torch.device:
    """Raises ValueError."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is none: give cpu, cuda:0, or several such as cuda:0,cuda:1") from None
    if device.type == "cuda":
        if not gpus:
            raise ValueError(f"device {name!r}: this machine has no GPU that torch can use: give cpu")
        if device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
        if device.index >= gpus:
            raise ValueError(f"device {name!r}: this machine has {gpus} GPU(s), from cuda:0 to cuda:{gpus - 1}")
    elif device.type == "meta":
        raise ValueError("device 'meta' holds no numbers: give cpu or cuda:0")
    return device
