from __future__ import annotations

import pytest

from project.core.atomic_files import atomic_file, write_atomically


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
