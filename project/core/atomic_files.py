"""Files that are whole or not there: what a crash or an interruption leaves is never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room, your quota on that disk is used up",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f unlimited`), or take another file system",
    errno.EROFS: "the file system is read-only, take another folder",
    errno.EACCES: "take a folder that you may write to",
    errno.EPERM: "take a folder that you may write to",
}


class NotWritten(OSError):
    """A file could not be written; the message names it and the remedy."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), str(file))

    def __reduce__(self) -> tuple[Any, ...]:
        """For ranks that tell each other."""
        return type(self), (Path(self.filename), OSError(self.errno, self.strerror))

    def __str__(self) -> str:
        remedy = REMEDIES.get(self.errno or 0, "look at the disk")
        return f"{self.filename} could not be written ({self.strerror}): {remedy}. What was there before is whole."


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Lets an error of the file system name the file that is being written: it names none, or a temporary one.

    Raises NotWritten.
    """
    try:
        yield
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(file, error) from error


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes `file` in one step: a reader, or a crash, never meets a half-written one."""
    with atomic_file(file) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic_file(file: Path) -> Iterator[IO[bytes]]:
    """A stream that becomes `file` when the block ends; if it raises, `file` stays as it was and nothing is left.

    Raises NotWritten for an error of the file system.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            try:
                yield stream
                # Here, so that what the disk refuses last is refused before the file takes its place.
                stream.flush()
            except BaseException:
                temporary.unlink()
                raise
        temporary.chmod(0o644)
        os.replace(temporary, file)


@contextmanager
def durable_file(file: Path) -> Iterator[IO[bytes]]:
    """As `atomic_file`, for a large file that one process alone writes, again and again; it is on the disk at the end.

    What a killed process leaves has a name of its own, `file.new`, which the next one writes anew: halves of large
    files do not pile up.
    Raises NotWritten for an error of the file system.
    """
    new = file.with_name(f"{file.name}.new")
    with writing(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, file)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` when the block ends; if it raises, nothing is left.

    A folder that holds something already is written into directly, and what was written before an error stays.

    Raises NotWritten if the folder cannot be made, or cannot take its place. One that the block raises names the file
    as it would have been called.
    """
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()):
        yield folder
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        with writing(folder):
            partial.mkdir(parents=True)
        yield partial
        with writing(folder):
            os.replace(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, NotWritten) and (file := Path(error.filename)).is_relative_to(partial):
            raise NotWritten(folder / file.relative_to(partial), error) from error
        raise
