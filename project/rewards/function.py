"""A plain Python function as a reward, in the signature of TRL's GRPOTrainer."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.core.errors import WrongReturn, place_of_code
from project.core.metrics import Mean
from project.core.nearest import nearest
from project.rewards.base import Reward, RewardOutput, where
from project.trajectory import Prompt, Trajectory

GIVEN = ("prompts", "completions", "images")


class FunctionReward(Reward):
    """Calls `function(prompts, completions, images=..., **columns) -> list[float | None]`, or an `async def` of it.

    All arguments are lists with one entry per sample: the prompts' texts, the reasoning texts, the pictures (PIL) and
    every further column of the prompt file (None where a prompt lacks it). A function without **kwargs gets only
    those that it names. None, or NaN, = not scored. Tensors and arrays of one number per sample will do.

    Args:
        function: import path, `package.module.function`; a module of the folder that the command is given in will do.
        weight: factor in the sum of rewards; with 0 it is only logged.
        text_only: it counts for the text objective alone.

    Raises:
        ValueError: if there is nothing at that path that can be called.
    """

    def __init__(self, function: str, weight: float = 1.0, text_only: bool = False) -> None:
        super().__init__(weight=weight, text_only=text_only)
        self.function = function
        self.call = imported(function)
        parameters = inspect.signature(self.call).parameters.values()
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._named = [p.name for p in named]
        self._required = [p.name for p in named if p.default is p.empty]

    @property
    def name(self) -> str:
        return self.function

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if a column has the name of another argument, or the function wants one that is missing."""
        columns = {name for prompt in prompts for name in prompt.columns}
        for prompt in prompts:
            if taken := sorted(set(prompt.columns) & set(GIVEN)):
                raise ValueError(
                    f"{where(prompt)}a column is named {taken[0]!r}, as an argument of {self.function}: rename it"
                )
        for name in self._required:
            if prompts and name not in (*GIVEN, *columns):
                raise ValueError(
                    f"{self.function} wants {name!r}, which is no column of the prompts: {nearest(name, columns)}"
                )

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Raises WrongReturn if the function does not give one finite number, or None, per sample."""
        values = self._values(trajectories)
        name = self.function.rpartition(".")[2]
        return RewardOutput(
            reward_N=torch.tensor(values, dtype=torch.float32),
            metrics={f"reward/{name}": Mean.over(values)},
        )

    def _values(self, trajectories: Sequence[Trajectory]) -> list[float]:
        columns = dict.fromkeys(name for trajectory in trajectories for name in trajectory.prompt.columns)
        arguments: dict[str, Any] = {
            **{name: [t.prompt.columns.get(name) for t in trajectories] for name in columns},
            "prompts": [t.prompt.text for t in trajectories],
            "completions": [t.reasoning for t in trajectories],
            "images": [Image.fromarray(t.image.pixels_HWC.numpy()) for t in trajectories],
        }
        if not self._takes_all:
            arguments = {name: value for name, value in arguments.items() if name in self._named}
        function = f"{self.function}{place_of_code(self.call)}"
        returned = self.call(**arguments)
        if inspect.iscoroutine(returned):
            returned = _awaited(returned)
        if isinstance(returned, Tensor | np.ndarray):
            returned = returned.tolist()
        if not isinstance(returned, Sequence) or len(returned) != len(trajectories):
            got = f"{len(returned)} values" if isinstance(returned, Sequence) else type(returned).__name__
            raise WrongReturn(f"{function} gave {got} for {len(trajectories)} samples: return a list of one each")
        return [math.nan if value is None else _number(value, function) for value in returned]


def _number(value: Any, function: str) -> float:
    if isinstance(value, Tensor | np.ndarray | np.generic) and not value.shape:
        value = value.item()
    if isinstance(value, Real) and not math.isinf(value):
        return float(value)
    got = f"{value!r} ({type(value).__name__})" if isinstance(value, Real | str) else _described(value)
    raise WrongReturn(f"{function} gave {got} for a sample: return one finite number, or None if not scored")


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"a {type(value).__name__} of shape {tuple(shape)}"


def imported(path: str) -> Callable[..., Any]:
    """What stands at an import path. Raises ValueError, saying what is wrong with it, if it cannot be called."""
    module_name, _, name = path.rpartition(".")
    if not module_name or not name:
        raise ValueError(f"function={path!r} is no import path: give package.module.function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"function={path!r}: {module_name} cannot be imported: {error}") from error
        raise ValueError(
            f"function={path!r}: there is no module {error.name!r}: modules are looked for in the folder that the "
            "command is given in, and among what is installed"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(f"function={path!r}: {module_name} has no function {name!r}: {nearest(name, known)}")
    return found


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    # In a thread of its own: in a notebook the caller's thread already runs an event loop.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
