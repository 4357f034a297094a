"""Rows of an evaluation, as people keep and edit them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.study.evaluations import read_rows

ROW = {"id": "a", "set": "s", "kind": "k", "right": 1.0}


def test_rows_are_read_however_they_were_saved(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "id": "b\u2028c"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_rows(tmp_path / "a.jsonl") == {row["id"]: row for row in rows}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps(ROW), "repeats the id 'a'"),
        (json.dumps({"id": "b"}), "lacks kind, set"),
        (json.dumps({**ROW, "id": ["b"]}), "has the id"),
        ('{"id": "b"', "is no JSON"),
        ("[1]", "is a JSON list"),
        ("[" * 100_000, "nests brackets"),
    ],
)
def test_what_is_no_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{message}"):
        read_rows(tmp_path / "a.jsonl")
