"""MME and MMBench in the layouts of their authors become question files that the benchmark reads."""

from __future__ import annotations

import base64
import csv
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from project.core.images import read_picture
from project.data.choices import choices_of
from project.data.prompts import read_prompts
from project.data.question_files import write_question_file

QUESTIONS = "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"


def png(level: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (4, 3), (level, 0, 0)).save(stream, format="PNG")
    return stream.getvalue()


def write_mme(folder: Path) -> Path:
    """One category in each of the two layouts."""
    for category, texts, pictures in (("color", "", ""), ("OCR", "questions_answers_YN", "images")):
        for part in (texts, pictures):
            (folder / category / part).mkdir(parents=True, exist_ok=True)
        (folder / category / texts / "0001.txt").write_text(QUESTIONS)
        (folder / category / pictures / "0001.png").write_bytes(png(200))
    return folder


def test_mme(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_question_file("mme", write_mme(tmp_path / "MME"), tmp_path / "out/mme.jsonl")
    prompts = read_prompts(tmp_path / "out/mme.jsonl")
    assert [(p.columns["set"], p.columns["item"], p.columns["answer"]) for p in prompts] == [
        (name, f"{name}/0001", answer) for name in ("OCR", "color") for answer in ("yes", "no")
    ]
    assert prompts[0].text == "Is it red? Please answer yes or no." and choices_of(prompts[1]).right == 1
    assert all(read_picture(p.image or "").shape == (3, 4, 3) for p in prompts)


def test_what_is_no_mme_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*MME"):
        write_question_file("mme", tmp_path / "MME", tmp_path / "mme.jsonl")
    folder = write_mme(tmp_path / "MME")
    with pytest.raises(ValueError, match=r"holds no CATEGORY/NAME\.txt"):
        write_question_file("mme", folder / "color", tmp_path / "mme.jsonl")
    (folder / "color/0002.txt").write_text(QUESTIONS)
    with pytest.raises(FileNotFoundError, match=r"color/0002\.txt: there is no picture 0002"):
        write_question_file("mme", folder, tmp_path / "mme.jsonl")
    (folder / "color/0001.txt").write_text("Is it red? Yes\n")
    with pytest.raises(ValueError, match=r"color/0001\.txt:1: is no question"):
        write_question_file("mme", folder, tmp_path / "mme.jsonl")
    assert not (tmp_path / "mme.jsonl").exists()


def write_mmbench(file: Path, *rows: dict[str, str]) -> Path:
    names = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category")
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, names, delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return file


COLOUR = {
    "index": "241",
    "question": "What colour is it?",
    "hint": "Look closely.",
    "A": "red",
    "B": "green",
    "C": "blue",
    "answer": "B",
    "category": "attribute",
    "l2-category": "perception",
    "image": base64.b64encode(png(10)).decode(),
}


def test_mmbench(tmp_path: Path) -> None:
    same = {**COLOUR, "index": "1000241", "A": "green", "B": "blue", "C": "red", "answer": "A", "image": "241"}
    file = write_mmbench(tmp_path / "dev.tsv", COLOUR, {**same, "hint": "nan"})
    write_question_file("mmbench", file, tmp_path / "bench.jsonl")
    first, second = read_prompts(tmp_path / "bench.jsonl")
    assert first.text == "Look closely.\nWhat colour is it?" and second.text == "What colour is it?"
    assert choices_of(first).listing == "A. red\nB. green\nC. blue"
    assert [choices_of(p).options[choices_of(p).right] for p in (first, second)] == ["green", "green"]
    assert first.columns["item"] == second.columns["item"] == "241" and first.image == second.image
    assert (first.columns["set"], first.columns["kind"]) == ("attribute", "perception")
    assert read_picture(first.image or "")[0, 0].tolist() == [10, 0, 0]


def test_mmbench_in_every_order(tmp_path: Path) -> None:
    file = write_mmbench(tmp_path / "dev.tsv", COLOUR)
    write_question_file("mmbench-circular", file, tmp_path / "bench.jsonl")
    prompts = read_prompts(tmp_path / "bench.jsonl")
    assert [p.id for p in prompts] == ["241/0", "241/1", "241/2"] and {p.columns["item"] for p in prompts} == {"241"}
    assert [choices_of(p).right for p in prompts] == [1, 0, 2]


def test_what_is_no_mmbench_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="has no column 'index'"):
        write_question_file("mmbench", tmp_path / "other.tsv", tmp_path / "bench.jsonl")
    for wrong, message in (({"answer": "D"}, "letter of no choice"), ({"image": "7"}, "no base64 and no index")):
        file = write_mmbench(tmp_path / "dev.tsv", {**COLOUR, **wrong})
        with pytest.raises(ValueError, match=f"index 241: .*{message}"):
            write_question_file("mmbench", file, tmp_path / "bench.jsonl")
