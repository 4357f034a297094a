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
from tests.helpers import ROOT

CASES = ROOT.parent / "shared" / "cases"
READ = {
    "strbool": ["a red circle"],
    "intbool": ["a red circle"],
    "conversational": ["a red circle"],
    "emptyimage": ["a red circle"],
    "dictoflists": ["a red circle"],
    "strquestions": ["a red circle"],
    "bom_crlf": ["a red circle", "a blue square", "a green triangle"],
    "u2028": ["a red\u2028circle", "a blue\x85square"],
}
"""File -> prompts."""


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


@pytest.mark.parametrize("name", ["train.jsonl", "train.txt"])
def test_what_git_lfs_left_is_named(tmp_path: Path, name: str) -> None:
    """A pointer is a text of three lines, which would be three prompts."""
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for given in (tmp_path / name, f"{tmp_path / name}[:2]"):
        with pytest.raises(ValueError, match=rf"{tmp_path / name} is a Git LFS pointer.*git lfs pull"):
            read_prompts(given)


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
    "empty_prompt": (b'{"prompt": " "}\n', "p.jsonl:1: 'prompt' is ' ': give a text"),
    "number": (b'{"prompt": 7}\n', "p.jsonl:1: 'prompt' is 7: give a text"),
    "other_name": (b'{"caption": "a", "n": 1}\n', "p.jsonl:1: lacks 'prompt' .it has 'caption', 'n'.: add it, or name"),
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


def questions(**entry: Any) -> dict[str, Any]:
    return {"prompt": "a", "semantic_questions": [{"question": "A?", "is_valid": True}, {"question": "B?", **entry}]}


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", None])
def test_a_question_is_valid_however_it_is_written(tmp_path: Path, value: Any) -> None:
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", questions(is_valid=value)))
    assert [q.text for q in prompt.questions] == ["A?", "B?"]


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "False", " FALSE "])
def test_an_invalid_question_is_left_out_however_it_is_written(tmp_path: Path, value: Any) -> None:
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", questions(is_valid=value)))
    assert [q.text for q in prompt.questions] == ["A?"]


@pytest.mark.parametrize(
    "entry",
    [
        *({"is_valid": value} for value in (2, -1, 0.5, "no", "", "1", [], {}, float("nan"))),
        *({"depends_on": value} for value in ("0", 0, [True], ["0"], [0.0], {}, "")),
        *({"tag": value} for value in (["Count"], True, {"a": 1})),
    ],
)
def test_other_values_are_refused_by_file_and_line(tmp_path: Path, entry: dict[str, Any]) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "x"}, questions(**entry))
    with pytest.raises(ValueError, match=rf"p\.jsonl:2: '{next(iter(entry))}' is .*: give"):
        read_prompts(file)


def test_questions_as_parquet_and_csv_files_hold_them(tmp_path: Path) -> None:
    rows = [{"question": "A?", "tag": "Count"}, {"question": "B?", "tag": None, "depends_on": [0]}]
    columns = {"question": ["A?", "B?"], "tag": ["Count", None], "depends_on": [None, [0]]}
    forms = [rows, columns, json.dumps(rows), json.dumps(columns)]
    read = [
        read_prompts(write(tmp_path / "p.jsonl", {"prompt": "a", "semantic_questions": form, "quality_questions": ""}))
        for form in forms
    ]
    wanted = (Question(text="A?", tag="Count"), Question(text="B?", depends_on=(0,)))
    assert [prompt.questions for (prompt,) in read] == [wanted] * 4


@pytest.mark.parametrize(
    "value",
    ["is it red?", "7", 0, False, {"question": "A?"}, {"question": ["A?"], "tag": []}, "[" * 10_000, [None], ["A?"]],
)
def test_what_is_no_list_of_questions_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"p\.jsonl:1: .*give .*'question'"):
        read_prompts(write(tmp_path / "p.jsonl", {"prompt": "a", "semantic_questions": value}))


@pytest.mark.parametrize("content", ["a red circle", [{"type": "text", "text": "a red circle"}]])
def test_a_prompt_may_be_one_message_of_the_user(tmp_path: Path, content: Any) -> None:
    file = write(tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": content}]})
    (prompt,) = read_prompts(file, columns={"prompt": "messages"})
    assert prompt.text == "a red circle" and prompt.columns == {}


USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([{"role": "system", "content": "s"}, USER], "a chat of 2 message.s. .system, user."),
        ([USER, {"role": "assistant", "content": "b"}, USER], "user, assistant, user"),
        (["a red circle"], "no role"),
        ([{"from": "human", "value": "a"}], "no role"),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}], "path of a picture"),
        ([{"role": "user", "content": None}], "give a text that says something"),
        ([], r"'prompt' is \[\]"),
        ({"role": "user", "content": "a"}, "'prompt' is {"),
    ],
)
def test_other_chats_are_refused(tmp_path: Path, chat: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"p\.jsonl:1: .*{message}"):
        read_prompts(write(tmp_path / "p.jsonl", {"prompt": chat}))


@pytest.mark.parametrize("image", ["", " ", None])
def test_an_empty_image_is_none(tmp_path: Path, image: Any) -> None:
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", {"prompt": "a", "image": image}))
    assert prompt.image is None


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("https://example.com/a.png", "is the URL 'https://example.com/a.png': download"),
        ("s3://bucket/a.png", "is the URL"),
        ("file:///a.png", "is the URL"),
        ("data:image/png;base64," + "A" * 500, r"is the URL .*\.\.\. .str, 524 characters.: download"),
        ("A" * 5000, "which is no path"),
        (".", "there is no picture"),
        ({"bytes": "x", "path": None}, "save the picture as a file"),
        (["a.png"], "save the picture as a file"),
    ],
)
def test_an_image_is_the_path_of_a_file(tmp_path: Path, image: Any, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=rf"p\.jsonl:2: .*{message}"):
        read_prompts(write(tmp_path / "p.jsonl", {"prompt": "b"}, {"prompt": "a", "image": image}))


def test_ids_are_texts_or_numbers(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "id": ""}, {"prompt": "b", "id": 3}, {"prompt": "c", "id": "x"}]
    first, *others = read_prompts(write(tmp_path / "p.jsonl", *rows))
    assert len(first.id) == 12 and [prompt.id for prompt in others] == ["3", "x"]
    for wrong in (True, ["a"], {"a": 1}):
        with pytest.raises(ValueError, match=r"p\.jsonl:1: 'id' is .*: give a text or a number"):
            read_prompts(write(tmp_path / "p.jsonl", {"prompt": "a", "id": wrong}))


def test_json_that_nobody_can_work_with_is_named(tmp_path: Path) -> None:
    for text in (
        '{"prompt": "a", "x": ' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"prompt": "a", "x": ' + "9" * 5000 + "}",
    ):
        (tmp_path / "p.jsonl").write_text(f'{{"prompt": "b"}}\n{text}\n')
        with pytest.raises(ValueError, match=r"p\.jsonl:2: (nests brackets|holds an integer)"):
            read_prompts(tmp_path / "p.jsonl")


def test_separators_of_unicode_are_part_of_a_prompt(tmp_path: Path) -> None:
    texts = ["a red\u2028circle", "a blue\x85square"]
    content = "".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\r\n" for text in texts)
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [prompt.text for prompt in read_prompts(tmp_path / "p.jsonl")] == texts
    (tmp_path / "p.txt").write_text("\n".join(texts), encoding="utf-8")
    assert [prompt.text for prompt in read_prompts(tmp_path / "p.txt")] == texts


# --------------------------------------------------------------------- datasets


class Saved(list):
    """What `datasets` gives."""

    features: dict[str, Any] = {}  # noqa: RUF012

    def with_format(self, kind: None) -> Saved:
        return self


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.SimpleNamespace(
        load_from_disk=lambda folder: Saved([{"prompt": f"from {Path(folder).name}"}]),
        load_dataset=lambda name, split: Saved([{"prompt": f"{name} {split}"}]),
    )
    monkeypatch.setitem(sys.modules, "datasets", stand_in)


def saved(folder: Path, *splits: str) -> Path:
    """The files by which a saved dataset is known."""
    for name in splits:
        (folder / name).mkdir(parents=True)
        (folder / name / "state.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    return folder


def test_saved_datasets_and_datasets_of_the_hub(tmp_path: Path, datasets: None) -> None:
    folder = saved(tmp_path / "data", "test", "train")
    assert read_prompts(folder)[0].text == "from train"
    assert read_prompts(folder / "test")[0].text == "from test"
    assert read_prompts(saved(tmp_path / "one", "validation"))[0].text == "from validation"
    assert read_prompts("owner/name")[0].text == "owner/name train"
    with pytest.raises(ValueError, match=r"holds no split 'train' .but test, validation.: give one of them"):
        read_prompts(saved(tmp_path / "two", "validation", "test"))


def test_a_dataset_needs_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    for path in (saved(tmp_path / "data", "train"), tmp_path / "p.parquet", "owner/name"):
        with pytest.raises(ValueError, match=r"needs a package that is not installed: `pip install datasets`, or"):
            read_prompts(path)


def test_a_folder_of_files(tmp_path: Path) -> None:
    def folder(name: str, *files: str) -> Path:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            write(tmp_path / name / file, {"prompt": file})
        return tmp_path / name

    def texts(name: str, *files: str) -> list[str]:
        return [prompt.text for prompt in read_prompts(folder(name, *files))]

    assert texts("a", "train.jsonl", "test.jsonl") == ["train.jsonl"]
    shards = [f"data/train-0000{n}-of-00002.jsonl" for n in range(2)]
    assert texts("b", *shards, "data/test-00000-of-00001.jsonl") == shards
    assert texts("c", "train/0.jsonl", "test/0.jsonl") == ["train/0.jsonl"]
    assert texts("d", "only.jsonl") == ["only.jsonl"]
    with pytest.raises(ValueError, match=r"e holds no split 'train' .but a, b.: give one of them"):
        texts("e", "a.jsonl", "b.jsonl")
    (tmp_path / "f").mkdir()
    with pytest.raises(ValueError, match=r"f holds no prompts: give"):
        read_prompts(tmp_path / "f")
    assert read_prompts(f"{tmp_path / 'b'}[::2]")[0].text == shards[0]


def test_the_files_that_people_have() -> None:
    if not CASES.is_dir():
        pytest.skip(f"no files at {CASES}")
    read = {name: read_prompts(CASES / "data" / f"{name}.jsonl") for name in READ}
    assert {name: [prompt.text for prompt in prompts] for name, prompts in read.items()} == READ
    assert [question.text for question in read["intbool"][0].questions] == ["is there a circle ?", "is it red ?"]
    assert [question.text for question in read["strbool"][0].questions] == ["is there a circle ?"]
    assert len(read["dictoflists"][0].questions) == 2 and len(read["strquestions"][0].questions) == 1
    assert read["emptyimage"][0].image is None
    for name, place in (("bigint", 1), ("mixedids", 2), ("urlimage", 1)):
        with pytest.raises(ValueError, match=rf"{name}\.jsonl:{place}: "):
            read_prompts(CASES / "data" / f"{name}.jsonl")
    assert len(read_prompts(CASES / "datasets" / "jsonldir")) == 2


def test_the_datasets_that_people_have() -> None:
    pytest.importorskip("datasets")
    if not CASES.is_dir():
        pytest.skip(f"no files at {CASES}")
    for name in ("dict", "flat", "parquetdir", "jsonldir"):
        assert [p.text for p in read_prompts(CASES / "datasets" / name)] == ["a red circle", "a blue square"], name
    (nested,) = read_prompts(CASES / "datasets" / "nested")
    assert nested.questions == (Question(text="is there a circle ?", tag="Existence"),)


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


def test_a_question_stands_in_place_of_a_prompt(tmp_path: Path) -> None:
    rows = [{"question": "is it red ?", "answer": "no"}, {"prompt": "a red circle", "question": "is it red ?"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked, drawn = read_prompts(tmp_path / "q.jsonl")
    assert (asked.text, drawn.text) == ("is it red ?", "a red circle")
    assert asked.columns["answer"] == "no"
    with pytest.raises(ValueError, match="lacks 'caption'"):
        read_prompts(tmp_path / "q.jsonl", {"prompt": "caption"})
