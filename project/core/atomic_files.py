"""Files that are whole or not there: what a crash or an interruption leaves is never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes `file` in one step: a reader, or a crash, never meets a half-written one."""
    with atomic_file(file) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic_file(file: Path) -> Iterator[IO[bytes]]:
    """A stream that becomes `file` when the block ends; if it raises, `file` stays as it was and nothing is left."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        naming(file),
        tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as stream,
    ):
        try:
            yield stream
        except BaseException:
            os.unlink(stream.name)
            raise
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, file)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Errors of the system within the block that name no file (a full disk, a limit on sizes) name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error
