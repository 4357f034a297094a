"""Places in the code where the host waits for the device, found on any machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

WAITS = {
    "item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "is_nonzero",
    "equal", "allclose", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount",
}  # fmt: skip
"""Names of functions that need a value of their tensor, or whose result has a size that depends on one."""
PACKAGE = Path(__file__).parents[1]
HERE = {str(Path(__file__)), str(Path(__file__).with_name("counting.py"))}


class Waits(TorchFunctionMode):
    """Lists calls that make the host wait for the device.

    On a GPU those with tensors of the GPU. On a CPU there is no waiting, and the calls are those that would wait: a
    tensor counts as one of the device if it is computed from a parameter, or was made with `device=` or `.to(device)`;
    what `.cpu()` and `.to("cpu")` give does not. What the backward pass does inside is not seen.

    Args:
        found: is told every call: its place in the project ("file:line") and the function.
    """

    def __init__(self, found: Callable[[str, str], None]) -> None:
        super().__init__()
        self._found = found
        self._marked = WeakTensorKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        of_device = any(map(self._of_device, tensors))
        target = _target(name, args, kwargs)
        if of_device and (name in WAITS or target == "host" or _by_mask(name, args)):
            self._found(_place(), name)
        result = func(*args, **kwargs)
        moved = name in ("to", "cpu", "cuda") and target is not None
        if moved and result is args[0] and not isinstance(result, nn.Parameter):
            # On a CPU nothing moves: an alias has a mark of its own, as a tensor that was moved has.
            result = torch.ops.aten.alias(result)
        if target == "device" or (of_device and target is None):
            for value in tree_flatten(result)[0]:
                if isinstance(value, Tensor):
                    self._marked[value] = True
        return result

    def _of_device(self, tensor: Tensor) -> bool:
        return tensor.device.type != "cpu" or isinstance(tensor, nn.Parameter) or tensor in self._marked


def _target(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Where a call puts its result: "host", "device", or None if it does not say."""
    if name == "cpu":
        return "host"
    given = kwargs.get("device")
    if given is None and name == "to":
        given = next((value for value in args[1:] if isinstance(value, torch.device | str)), None)
    if given is None:
        return None
    return "host" if given == "cpu" and isinstance(given, str) else "device"


def _by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether values are taken or set where a mask is true: how many these are only the device knows."""
    if name not in ("__getitem__", "__setitem__", "index_put", "index_put_"):
        return False
    places = tree_flatten(args[1])[0]
    masks = [place for place in places if isinstance(place, Tensor) and place.dtype in (torch.bool, torch.uint8)]
    return any(mask.ndim > 0 for mask in masks)


def _place() -> str:
    """File and line in the project that the call is made from; else the nearest outside torch."""
    frame = sys._getframe(1)
    nearest = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in HERE:
            if file.startswith(str(PACKAGE)):
                return f"{Path(file).relative_to(PACKAGE.parent)}:{frame.f_lineno}"
            if not nearest and "/torch/" not in file:
                nearest = f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return nearest
