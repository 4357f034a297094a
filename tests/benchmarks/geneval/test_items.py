"""GenEval's prompts: what is read, and what is refused with file and line."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from project.benchmarks.geneval.items import CLASSES, COLORS, Exclude, Include, Item, read_items
from tests.helpers import ROOT

DATA = (ROOT / "../shared/benchmarks/geneval").resolve()
ROW = {
    "tag": "position",
    "include": [{"class": "dog", "count": 1}, {"class": "tv remote", "count": 2, "position": ["left of", 0]}],
    "prompt": "a photo of two tv remotes left of a dog",
}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_become_items(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counting = {
        "tag": "counting",
        "include": [{"class": "dog", "count": 3, "color": "red"}],
        "exclude": [{"class": "dog", "count": 4}],
        "prompt": "three red dogs",
    }
    with caplog.at_level(logging.WARNING):
        found = read_items(write(tmp_path, ROW, counting))
    assert found.items == (
        Item(
            id="00000",
            tag="position",
            prompt=ROW["prompt"],
            include=(
                Include(class_name="dog", count=1),
                Include(class_name="tv remote", count=2, relation="left of", target=0),
            ),
        ),
        Item(
            id="00001",
            tag="counting",
            prompt="three red dogs",
            include=(Include(class_name="dog", count=3, color="red"),),
            exclude=(Exclude(class_name="dog", count=4),),
        ),
    )
    assert [item.counts for item in found.items] == [False, True]
    (warning,) = caplog.messages
    assert found.sha256[:12] in warning and "5c48e0813e81" in warning and "09472cc9c24e" in warning


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tag": ""}, "'tag' is '': give a text"),
        ({"prompt": None}, "'prompt' is None"),
        ({"include": []}, "asks for nothing"),
        ({"include": {"class": "dog"}}, "'include' is"),
        ({"include": [{"class": "dgo", "count": 1}]}, "no class 'dgo': did you mean 'dog'?"),
        ({"include": [{"class": "mouse", "count": 1}]}, "did you mean 'computer mouse'?"),
        ({"include": [{"class": "dog", "count": 0}]}, "'count' is 0"),
        ({"include": [{"class": "dog", "count": True}]}, "'count' is True"),
        ({"include": [{"class": "dog", "count": 1, "color": "grene"}]}, "'grene' is unknown: did you mean 'green'?"),
        ({"include": [{"class": "dog", "count": 1, "position": ["left of", 0]}]}, "a requirement before this one"),
        ({"exclude": [{"class": "dog"}]}, "'count' is None"),
    ],
)
def test_what_is_no_item(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, ROW, ROW | change)
    with pytest.raises(ValueError) as caught:
        read_items(file)
    assert f"{file}:2: " in str(caught.value) and message in str(caught.value)


def test_no_file_and_no_item(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"github\.com/djghosh13/geneval"):
        read_items(tmp_path / "evaluation_metadata.jsonl")
    with pytest.raises(ValueError, match="holds no item"):
        read_items(write(tmp_path))


@pytest.mark.parametrize("name", ["evaluation_metadata.jsonl", "evaluation_metadata_long.jsonl"])
def test_the_published_prompts(name: str, caplog: pytest.LogCaptureFixture) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"no {DATA / name}")
    with caplog.at_level(logging.WARNING):
        items = read_items(DATA / name).items
    assert not caplog.messages
    tags = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
    assert Counter(item.tag for item in items) == tags
    assert all((len(item.exclude) == 1) == item.counts for item in items)
    assert {part.color for item in items for part in item.include} == {None, *COLORS}


def test_classes_are_those_of_the_official_detector() -> None:
    if not (DATA / "object_names.txt").is_file():
        pytest.skip(f"no {DATA / 'object_names.txt'}")
    assert tuple((DATA / "object_names.txt").read_text().split("\n")[:80]) == CLASSES
