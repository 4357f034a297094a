from __future__ import annotations

import errno
import os

import pytest

from project.core.atomic_files import NotWritten, atomic_file, write_atomically


def test_a_file_appears_whole_with_its_folder(tmp_path):
    file = tmp_path / "new/folder/results.json"
    with atomic_file(file) as stream:
        stream.write(b"half")
        stream.flush()
        assert not file.exists()
        stream.write(b" and half")
    assert file.read_bytes() == b"half and half"
    write_atomically(file, "é")
    assert file.read_bytes() == "é".encode()
    assert [*file.parent.iterdir()] == [file] and file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, failure):
    file = tmp_path / "results.json"
    write_atomically(file, b"before")
    with pytest.raises(failure), atomic_file(file) as stream:
        stream.write(b"half")
        raise failure
    assert file.read_bytes() == b"before" and [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("code, remedy", [(errno.ENOSPC, "make room"), (errno.EFBIG, "ulimit -f"), (errno.EIO, "disk")])
def test_what_the_disk_refuses_names_the_file_and_the_remedy(tmp_path, code, remedy):
    file = tmp_path / "results.json"
    write_atomically(file, b"before")
    with pytest.raises(NotWritten) as caught, atomic_file(file):
        raise OSError(code, os.strerror(code))
    assert str(caught.value).startswith(f"{file} could not be written ({os.strerror(code)}): ")
    assert remedy in str(caught.value) and caught.value.errno == code
    assert file.read_bytes() == b"before" and [*tmp_path.iterdir()] == [file]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotWritten, match=r"taken/results\.json could not be written"):
        write_atomically(tmp_path / "taken/results.json", "x")
