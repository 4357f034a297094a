"""Objects from what a command's option of a class type, or a part of a configuration file, holds."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from project.core.errors import UsageError, explain

Made = TypeVar("Made")


def instantiate(family: type[Made], options: Any, files: Sequence[Path] = ()) -> Made:
    """The object that `--name.class_path ... --name.init_args...` (or `--name CLASS`) of a command describes.

    Raises UsageError for arguments that do not fit the class; `files` are those that the options were read from.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=family, required=True)
    try:
        options = parser.parse_object({"made": options})
    except ArgumentError as error:
        raise UsageError(explain(str(error), files)) from error
    made: Made = parser.instantiate(options).made
    return made
