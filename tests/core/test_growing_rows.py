"""Files of rows that grow while a command works."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.core.growing_rows import append_rows, whole_rows, write_sorted


def test_rows_are_written_in_the_order_of_their_keys_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    write_sorted(file, {(1, 0): {"id": "b"}, (0, 1): {"id": "a"}})
    assert file.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n'
    assert whole_rows(file) == [(f"{file}:1", {"id": "a"}), (f"{file}:2", {"id": "b"})]
    append_rows(file, [{"id": "c"}, {"id": "d"}])
    assert [row["id"] for _, row in whole_rows(file)] == ["a", "b", "c", "d"]
    write_sorted(file, {})
    assert not file.exists() and whole_rows(file) == []


@pytest.mark.parametrize("half", [b'{"id"', b'{"id": "\xc3', b"7", b"\xff"])
def test_what_a_kill_left_of_a_row_is_not_read(tmp_path: Path, half: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": "a"}\n' + half)
    assert [row for _, row in whole_rows(file)] == [{"id": "a"}]
