"""Objects from what a command's option of a class type holds."""

from __future__ import annotations

from typing import Any, TypeVar

Made = TypeVar("Made")


def instantiate(family: type[Made], options: Any) -> Made:
    """The object that `--name.class_path ... --name.init_args...` (or `--name CLASS`) of a command describes.

    Raises argparse.ArgumentError for arguments that do not fit the class.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=family, required=True)
    made: Made = parser.instantiate(parser.parse_object({"made": options})).made
    return made
