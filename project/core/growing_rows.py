"""Files of rows that grow while a command works: one that is killed loses no whole row, and goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from project.core.atomic_files import write_atomically, writing
from project.core.json_files import read_rows

Row = dict[str, Any]


def whole_rows(file: Path) -> list[tuple[str, Row]]:
    """("file:line", row) up to the first that is none: the last one of a command that was killed may be half written.

    Empty without the file.
    """

    def rows() -> Iterator[tuple[str, Row]]:
        try:
            yield from read_rows(file)
        except ValueError:
            return

    return list(rows()) if file.is_file() else []


def append_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds rows at the end of a file in one write: of rows that belong together a kill leaves all or none.

    Raises OSError naming the file.
    """
    content = "".join(f"{json.dumps(row)}\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file), file.open("ab") as stream:
        stream.write(content.encode())


def write_sorted(file: Path, rows: Mapping[Any, Row]) -> None:
    """Writes the rows in the order of their keys; without rows there is no file. Raises OSError naming the file."""
    if rows:
        write_atomically(file, "".join(f"{json.dumps(rows[key])}\n" for key in sorted(rows)))
    else:
        file.unlink(missing_ok=True)
