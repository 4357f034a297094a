"""Text in pictures: the distance by hand, and the real reader where it is installed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from project.core.metrics import values
from project.rewards.base import RewardFailed, score
from project.rewards.ocr import OCRReward, edit_distance
from project.rewards.text_reader import RapidOCRReader, TextReader
from project.trajectory import Prompt, Trajectory


class Told(TextReader):
    """Finds what it is told, by the grey value of the picture."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines
        self.pictures = 0

    def preflight(self) -> None:
        """Nothing can be missing."""

    def read(self, images: Sequence[np.ndarray]) -> Any:
        self.pictures += len(images)
        return self.lines if not isinstance(self.lines, dict) else [self.lines[image[0, 0, 0]] for image in images]


SIGN = 'a shop with a sign that says "Fresh Bread" and "50%"'


@pytest.mark.parametrize(
    "one, two, distance",
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2), ("same", "same", 0)],
)
def test_edit_distances_by_hand(one: str, two: str, distance: int) -> None:
    assert edit_distance(one, two) == edit_distance(two, one) == distance


@pytest.mark.parametrize(
    "lines, reward",
    [
        (["Fresh Bread", "50%"], 1.0),
        (["50%", "fresh", "BREAD"], 1.0),  # any order, any letter size, white space aside
        (["FreshBread50%!"], 1 - 1 / 13),
        (["Fresh Bred", "50%"], 1 - 1 / 13),
        (["Bread"], 5 / 13),
        ([], 0.0),
        (["something else altogether and long"], 0.0),
    ],
)
def test_rewards_by_hand(trajectory: Any, lines: list[str], reward: float) -> None:
    output = OCRReward(reader=Told([lines])).score([trajectory(SIGN)])
    assert output.reward_N.tolist() == pytest.approx([reward])
    told = values(output.metrics)
    assert told["reward/ocr/exact"] == float(reward == 1) and told["reward/ocr/nothing_found"] == float(not lines)


def test_case_counts_if_it_is_told_to(trajectory: Any) -> None:
    reader = Told([["fresh bread 50%"]])
    output = OCRReward(reader=reader, ignore_case=False).score([trajectory(SIGN)])
    assert output.reward_N.item() == pytest.approx(11 / 13)


def test_equal_pictures_are_read_once_and_many_lines_in_their_order(trajectory: Any) -> None:
    lines = list("bcdefa")
    reader = Told({1: lines, 2: lines[:5]})
    drawn = [trajectory('say "abcde"', picture) for picture in (1, 2, 1)]
    reward_N = OCRReward(reader=reader).score(drawn).reward_N
    assert reader.pictures == 2
    assert reward_N.tolist() == pytest.approx([1 - 3 / 5, 1 - 1 / 5, 1 - 3 / 5])  # bcdefa as it is; fbcde


def test_the_text_may_stand_in_a_column(trajectory: Any) -> None:
    reward = OCRReward(column="text", reader=Told([["Exit"]]))
    assert reward.score([trajectory("a door", text="exit")]).reward_N.item() == 1
    for prompt, said in (
        (Prompt(id="a", text="a door", place="p.jsonl:3", columns={"txt": "x"}), r"p.jsonl:3: .*did you mean 'txt'"),
        (Prompt(id="a", text="a door", columns={"text": None}), "names no text .* fill its column 'text'"),
    ):
        with pytest.raises(ValueError, match=said):
            reward.check([prompt])
    with pytest.raises(ValueError, match="names no text that is to be in the picture: put it in quotation marks"):
        OCRReward().check([Prompt(id="a", text="a door")])
    OCRReward().check([Prompt(id="a", text=text) for text in ("say “hello”", 'say "hello"')])


@pytest.mark.parametrize(
    "returned, said",
    [
        ([], r"gave 0 for 1 pictures: return a list of lines for each"),
        (["text"], "gave something other than texts"),
        ([[1.0]], "gave something other than texts"),
        (None, "gave NoneType for 1 pictures"),
    ],
)
def test_a_reader_that_gives_something_else_is_named(trajectory: Any, returned: Any, said: str) -> None:
    with pytest.raises(RewardFailed, match=rf"text reader Told at .*test_ocr.py:\d+ {said}"):
        score([trajectory(SIGN)], [OCRReward(reader=Told(returned))])


@pytest.mark.parametrize("package", ["rapidocr", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in ("rapidocr", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)  # None: it cannot be imported
    with pytest.raises(ValueError, match=rf"needs the package {package}, .*: pip install 'alphagrpo\[ocr\]'"):
        OCRReward().preflight()
    with pytest.raises(ValueError, match="minimum_score=2"):
        RapidOCRReader(minimum_score=2)


# --------------------------------------------------------------------- the real reader


def sign(prompt: str, text: str, trajectory: Any) -> Trajectory:
    """A picture with this text on it."""
    canvas = Image.new("RGB", (320, 128), (235, 225, 205))
    ImageDraw.Draw(canvas).text((20, 40), text, fill=(40, 30, 90), font=ImageFont.load_default(size=36))
    made = trajectory(prompt)
    image = dataclasses.replace(made.segments[-1], pixels_HWC=torch.from_numpy(np.asarray(canvas).copy()))
    return dataclasses.replace(made, segments=(image,))


def test_rendered_text_is_read(trajectory: Any) -> None:
    pytest.importorskip("rapidocr", reason="pip install 'alphagrpo[ocr]'")
    pytest.importorskip("onnxruntime", reason="pip install 'alphagrpo[ocr]'")
    reward = OCRReward(ignore_case=False)
    reward.preflight()
    drawn = [sign('a sign "Open Daily"', text, trajectory) for text in ("Open Daily", "Open Dailx", "Museum", "")]
    rewards = reward.score(drawn).reward_N.tolist()
    assert rewards == pytest.approx([1.0, 1 - 1 / 9, 0.0, 0.0], abs=0.12) and rewards[0] == 1.0
