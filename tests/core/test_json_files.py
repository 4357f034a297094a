"""JSON as people write it: byte order marks, line ends, and what nobody can work with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.core.json_files import DEEPEST, append_row, json_value, positive, read_list, read_object, read_rows


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(file) == {"a": 1}
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(read_rows(file)) == [(f"{file}:1", {"a": 1}), (f"{file}:3", {"a": 2})]


def test_lines_end_where_json_lines_end(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\x85b", "a\u2029b", "a\x0cb"]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"t": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    assert [row["t"] for _, row in read_rows(file)] == texts


BAD = {
    "brackets": ("[" * 200_000 + "]" * 200_000, "nests brackets more than 100 levels deep"),
    "open brackets": ("[" * 200_000, "nests brackets more than 100 levels deep"),
    "objects": ('{"a":' * 150 + "1" + "}" * 150, "nests brackets more than 100 levels deep"),
    "integer": ('{"a": ' + "9" * 5000 + "}", "an integer of thousands of digits"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_nobody_can_work_with_is_named(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"^{file}: .*{message}"):
        read_object(file)
    file.write_text(f'{{"a": 1}}\n{text}\n')
    with pytest.raises(ValueError, match=rf"^{file}:2: .*{message}"):
        list(read_rows(file))


def test_the_bound_on_brackets() -> None:
    json_value("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match="levels deep"):
        json_value("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "0", "true", '"1"', "null", "1" + "0" * 400])
def test_a_size_is_a_number_above_0(value: str) -> None:
    with pytest.raises(ValueError, match=r"config\.json: 'size' is .*, not a number above 0"):
        positive(json.loads(f'{{"size": {value}}}'), "size", Path("config.json"))


def test_rows_are_added_at_the_end(tmp_path: Path) -> None:
    for n in range(2):
        append_row(tmp_path / "new" / "a.jsonl", {"n": n})
    assert [row for _, row in read_rows(tmp_path / "new" / "a.jsonl")] == [{"n": 0}, {"n": 1}]


def test_lists_of_objects(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match="a benchmark holds one"):
        read_list(file, "a benchmark")
    file.write_text('[{"a": 1}, {"a": 2}]')
    assert read_list(file, "a benchmark") == [(f"{file}[0]", {"a": 1}), (f"{file}[1]", {"a": 2})]
    for text, message in (('{"a": 1}', "holds a dict, not a list"), ("[{}, 3]", r"a\.json\[1\]: is a int, no object")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_list(file, "a benchmark")
