"""Prompt files: what a row becomes, and what a bad row says."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from project.data.prompts import prompt_row, read_prompts
from project.trajectory import Prompt, Question


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_published_row(tmp_path: Path) -> None:
    def question(text: str, **others: Any) -> dict[str, Any]:
        return {"question_type": "semantic", "question": text, "is_valid": True, "tag": "Count", **others}

    row = {
        "prompt": "a cat",
        "original_index": 7,
        "semantic_questions": [question("A?"), question("B?", is_valid=False), question("C?", depends_on=[0, 1])],
        "quality_questions": [question("D?", tag=None, depends_on=[2])],
        "kind": "single",
    }
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", row))
    # B is dropped: C moves from place 2 to 1, and loses its dependence on B.
    assert prompt.questions == (
        Question(text="A?", tag="Count"),
        Question(text="C?", tag="Count", depends_on=(0,)),
        Question(text="D?", kind="quality", depends_on=(1,)),
    )
    assert prompt.text == "a cat" and prompt.image is None
    assert prompt.columns == {"original_index": 7, "kind": "single"}


def test_ids_depend_on_content_not_on_place(tmp_path: Path) -> None:
    first = read_prompts(write(tmp_path / "a.jsonl", {"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"}))
    second = read_prompts(write(tmp_path / "b.jsonl", {"prompt": "y"}, {"prompt": "x"}))
    assert first[0].id == second[1].id and first[1].id == second[0].id
    assert first[2].id == f"{first[0].id}-1"


def test_plain_text_and_renamed_columns(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffein Bär\r\n\n  a dog \n".encode())
    assert [p.text for p in read_prompts(tmp_path / "p.txt")] == ["ein Bär", "a dog"]
    file = write(tmp_path / "c.jsonl", {"caption": "a", "prompt": "other", "name": 3})
    (prompt,) = read_prompts(file, columns={"prompt": "caption", "id": "name"})
    assert (prompt.text, prompt.id, prompt.columns) == ("a", "3", {"prompt": "other"})


def test_an_image_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"")
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", {"prompt": "a", "image": "cat.png"}))
    assert prompt.image == str(tmp_path / "cat.png")


def test_rows_round_trip(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"")
    prompts = [
        Prompt(
            id="x",
            text="ein Bär",
            questions=(
                Question(text="A?", tag="Existence"),
                Question(text="B?", tag="Count", depends_on=(0,)),
                Question(text="C?", kind="quality", tag="Anatomy", depends_on=(0, 1)),
            ),
            image=str(tmp_path / "cat.png"),
            columns={"original_index": 3, "kind": "animal"},
        ),
        Prompt(id="y", text="nothing"),
    ]
    file = write(tmp_path / "p.jsonl", *(prompt_row(prompt, tmp_path) for prompt in prompts))
    assert read_prompts(file) == prompts
    assert json.loads(file.read_text().splitlines()[0]) == {
        "id": "x",
        "prompt": "ein Bär",
        "image": "cat.png",
        "original_index": 3,
        "kind": "animal",
        "semantic_questions": [
            {"question_type": "semantic", "question": "A?", "is_valid": True, "tag": "Existence"},
            {"question_type": "semantic", "question": "B?", "is_valid": True, "tag": "Count", "depends_on": [0]},
        ],
        "quality_questions": [
            {"question_type": "quality", "question": "C?", "is_valid": True, "tag": "Anatomy", "depends_on": [0, 1]},
        ],
    }


BAD = {
    "no_json": (b'{"prompt": "a"}\n{"prompt": \n', "p.jsonl:2: is no JSON"),
    "no_object": (b"\n[1]\n", "p.jsonl:2: is a JSON list"),
    "no_prompt": (b'{"text": "a"}\n', "p.jsonl:1: lacks 'prompt'"),
    "empty_prompt": (b'{"prompt": " "}\n', "p.jsonl:1: lacks 'prompt'"),
    "not_utf8": (b'{"prompt": "a"}\n{"prompt": "\xe9"}\n', "p.jsonl:2: is not UTF-8"),
    "empty": (b"\n\n", "holds no prompt"),
    "same_id": (b'{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}\n', "p.jsonl:2: id '1' is that of .*p.jsonl:1"),
    "questions_no_list": (b'{"prompt": "a", "semantic_questions": "A?"}\n', "p.jsonl:1: questions stand in a list"),
    "no_question": (b'{"prompt": "a", "semantic_questions": [{"tag": ""}]}\n', "p.jsonl:1: .* is no question"),
    "depends_on_itself": (
        b'{"prompt": "a", "semantic_questions": [{"question": "A?", "depends_on": [0]}]}\n',
        "p.jsonl:1: question 0 depends on 0",
    ),
    "no_image": (b'{"prompt": "a", "image": "no.png"}\n', "p.jsonl:1: there is no picture .*no.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_name_file_and_line(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_prompts(tmp_path / "p.jsonl")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no prompt file .*none\.jsonl"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "p.csv").write_text("a")
    with pytest.raises(ValueError, match=r"cannot read \.csv: give \.jsonl or \.txt"):
        read_prompts(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="unknown field 'promt'"):
        read_prompts(tmp_path / "p.csv", columns={"promt": "x"})


def test_a_dataset_needs_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        read_prompts(tmp_path)
    stand_in = types.SimpleNamespace(
        load_from_disk=lambda folder: [{"prompt": "from disk"}],
        load_dataset=lambda name, split: [{"prompt": f"{name} {split}"}],
    )
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    assert read_prompts(tmp_path)[0].text == "from disk"
    assert read_prompts("owner/name")[0].text == "owner/name train"


def test_a_slice_takes_some_of_the_prompts(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("".join(f"{n}\n" for n in range(10)))

    def texts(bounds: str) -> str:
        return "".join(prompt.text for prompt in read_prompts(f"{file}{bounds}"))

    assert texts("") == "0123456789"
    assert texts("[::4]") == "048" and texts("[1::4]") == "159"
    assert texts("[:3]") == "012" and texts("[-2:]") == "89" and texts("[2:6:2]") == "24"
    assert read_prompts(f"{file}[3:4]")[0].place == f"{file}:4", "places are those of the file"
    with pytest.raises(ValueError, match=r"10 prompt.*none of them in the slice"):
        texts("[20:]")
    with pytest.raises(ValueError, match="step cannot be 0"):
        texts("[::0]")
    with pytest.raises(FileNotFoundError, match=r"p\.txt\[x\]"):
        texts("[x]")
    odd = tmp_path / "odd[1:2]"
    odd.mkdir()
    (odd / "p.txt").write_text("a\n")
    assert read_prompts(odd / "p.txt")[0].text == "a", "a folder may be called anything"
