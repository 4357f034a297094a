from __future__ import annotations

import errno
import os

import pytest

from project.core.atomic_files import NotWritten, atomic_file, atomic_folder, write_atomically


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


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new/folder"
    with atomic_folder(folder) as place:
        (place / "weights").write_text("whole")
        assert not folder.exists()
    assert (folder / "weights").read_text() == "whole" and [*folder.parent.iterdir()] == [folder]
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "other") as place:
        (place / "weights").write_text("half")
        raise KeyboardInterrupt
    with (
        pytest.raises(NotWritten, match=f"^{tmp_path}/other/weights could not be"),
        atomic_folder(tmp_path / "other") as place,
        atomic_file(place / "weights"),
    ):
        raise OSError(errno.ENOSPC, "full")
    assert [*tmp_path.iterdir()] == [tmp_path / "new"]


def test_a_folder_in_use_is_written_into(tmp_path):
    (tmp_path / "before").write_text("stays")
    with atomic_folder(tmp_path) as place:
        (place / "weights").write_text("whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["before", "weights"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken/inner"):
        with pytest.raises(NotWritten, match=f"{folder} could not be written"), atomic_folder(folder):
            pass
    assert [*tmp_path.iterdir()] == [tmp_path / "taken"]
