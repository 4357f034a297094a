"""`python -m project COMMAND ...`: finds the command and runs it.

fit, validate, test and predict are LightningCLI's; every other command is a file of `project/cli/commands` with
`add_arguments(parser)` and `run(args) -> int`, whose docstring's first line is its help. It may have
`add_chosen_arguments(parser, argv)` too, for options that depend on what the command line names. Only what a command
needs is imported, so that help is quick.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from project.core.errors import ScoringFailed, UsageError, explain

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

LIGHTNING = {
    "fit": "Train a model as a YAML file says.",
    "validate": "Measure a model on the validation prompts.",
    "test": "Measure a model on the test prompts.",
    "predict": "Generate for the prediction prompts.",
}
USAGE_ERROR, FAILED = 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 wrong usage, 128 + n ended by signal n.

    What a user can mend (ValueError, which UsageError is too, OSError, SyntaxError of a file of his, scoring that
    failed) becomes one message on stderr; with `--debug` the traceback follows.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    commands = command_files()
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(overview(commands))
        return 0 if argv else USAGE_ERROR
    try:
        if argv[0] in LIGHTNING:
            return importlib.import_module("project.cli.lightning_cli").run_lightning(argv)
        if argv[0] in commands:
            return run_command(argv[0], argv[1:])
        near = difflib.get_close_matches(argv[0], [*LIGHTNING, *commands], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join([*LIGHTNING, *commands])}"
        return complain(f"unknown command {argv[0]!r}: {remedy}", USAGE_ERROR)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else (0 if stop.code is None else FAILED)
    except (ValueError, OSError, ScoringFailed) as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UsageError):
            return complain(str(error), USAGE_ERROR)
        return complain(str(error), FAILED, "" if debug else "(--debug shows the traceback)")
    except SyntaxError as error:
        if debug:
            traceback.print_exc()
        line = (error.text or "").strip()
        return complain(f"{error.filename}:{error.lineno}: {error.msg}: {line!r}: correct this line", USAGE_ERROR)


def command_files() -> dict[str, Path]:
    """Name -> file of every command in `project/cli/commands`."""
    folder = Path(__file__).parent / "cli" / "commands"
    return {file.stem: file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")}


def overview(commands: dict[str, Path]) -> str:
    """The help text: every command with one line, read from the files without importing them."""
    lines = LIGHTNING | {
        name: (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        for name, file in commands.items()
    }
    width = max(map(len, lines))
    listing = "\n".join(f"  {name:<{width}}  {line}" for name, line in lines.items())
    return (
        f"usage: python -m project COMMAND ...\n\n{listing}\n\n"
        "`python -m project COMMAND --help` tells a command's arguments; --debug shows tracebacks.\n"
    )


def run_command(name: str, argv: list[str]) -> int:
    """Runs a command of `project/cli/commands`."""
    from jsonargparse import ActionConfigFile

    from project.core.config_files import files_in, unknown_empty_key, unreadable

    command = importlib.import_module(f"project.cli.commands.{name}")
    parser = command_parser(name, argv)
    # Of other commands `--config` is a file for `fit`.
    files = files_in(argv) if any(isinstance(action, ActionConfigFile) for action in parser._actions) else []
    if problem := unreadable(files):
        raise UsageError(problem)
    try:
        arguments = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        options = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
        raise UsageError(explain(str(error), files, options)) from error
    if problem := unknown_empty_key(files, arguments):
        raise UsageError(problem)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return int(command.run(arguments))


def command_parser(name: str, argv: list[str]) -> ArgumentParser:
    """The parser of a command of `project/cli/commands` for these words. Raises UsageError for a word that it needs."""
    from jsonargparse import ArgumentParser

    command = importlib.import_module(f"project.cli.commands.{name}")
    parser = ArgumentParser(
        prog=f"python -m project {name}", description=command.__doc__, exit_on_error=False, allow_abbrev=False
    )
    command.add_arguments(parser)
    if hasattr(command, "add_chosen_arguments"):
        command.add_chosen_arguments(parser, argv)
    return parser


def complain(message: str, code: int, hint: str = "") -> int:
    """Writes one message to stderr and returns the exit code."""
    sys.stderr.write(f"error: {message}\n" + (f"{hint}\n" if hint else ""))
    return code


if __name__ == "__main__":
    sys.exit(main())
