"""Which backbone a checkpoint folder belongs to: each says itself what it recognises.

A new backbone is one new file or folder in `project/models`, with a `ModelSource` made from a directory.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import project.models
from project.models.base import ModelSource
from project.models.hub import local_copy


def checkpoint(directory: str) -> ModelSource:
    """The source that reads a checkpoint folder, or a hub id named `owner/name`.

    Raises:
        FileNotFoundError: there is neither a folder nor a hub repository of this name, or it lacks what a checkpoint
            is recognised by.
    """
    folder = local_copy(directory, ["*.json"])
    for source in sources():
        if source.recognises(folder):
            return source(directory)  # type: ignore[call-arg]
    raise FileNotFoundError(
        f"{directory} is no checkpoint: none of {', '.join(source.__name__ for source in sources())} recognises its "
        "files; give the folder with the configuration files beside the weights"
    )


def sources() -> Iterator[type[ModelSource]]:
    """Every source of models in `project/models`."""
    for module in pkgutil.walk_packages(project.models.__path__, "project.models."):
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(value, ModelSource) and value is not ModelSource and value.__module__ == module.name:
                yield value
