"""The text in a picture is what the prompt asks for, letter by letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch

from project.core.digest import image_digest
from project.core.errors import WrongReturn, place_of_code
from project.core.metrics import Mean
from project.core.nearest import nearest
from project.rewards.base import Reward, RewardOutput, where
from project.rewards.text_reader import RapidOCRReader, TextReader
from project.trajectory import Prompt, Trajectory

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|「([^」]+)」")
MOST_ORDERED = 5
"""Lines of text that are tried in every order; of more, only the reader's order counts (120 orders of 5)."""


class OCRReward(Reward):
    """`1 - edit distance / length` of the text that a reader finds in the picture, at least 0.

    The distance is the number of letters to insert, delete or replace. The length is that of the text asked for. A
    picture with exactly this text has 1. White space does not count. Lines can be in any order: the best order counts.
    A picture without readable text has 0.

    Args:
        column: column of the prompt file with the text; None = the text in quotation marks in the prompt.
        ignore_case: capital and small letters are the same.
        reader: what reads the text; None = RapidOCRReader, which needs the extra `ocr`.
        weight: factor in the sum of rewards; with 0 it is only logged.
    """

    def __init__(
        self,
        column: str | None = None,
        ignore_case: bool = True,
        reader: TextReader | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        self.column = column
        self.ignore_case = ignore_case
        self.reader = reader or RapidOCRReader()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if a prompt asks for no text."""
        for prompt in prompts:
            self._wanted(prompt)

    def preflight(self) -> None:
        """Raises ValueError if the reader's packages are missing."""
        self.reader.preflight()

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Equal pictures are read once. Raises WrongReturn if the reader gives no list of lines per picture."""
        images = [t.image.pixels_HWC.numpy() for t in trajectories]
        keys = [image_digest(image) for image in images]
        lines = self._lines(dict(zip(keys, images, strict=True)))
        rewards = [self._reward(lines[key], self._wanted(t.prompt)) for key, t in zip(keys, trajectories, strict=True)]
        return RewardOutput(
            reward_N=torch.tensor(rewards, dtype=torch.float32),
            metrics={
                "reward/ocr": Mean.over(rewards),
                "reward/ocr/exact": Mean.over(reward == 1 for reward in rewards),
                "reward/ocr/nothing_found": Mean.over(not lines[key] for key in keys),
            },
        )

    def _lines(self, images: dict[bytes, np.ndarray]) -> dict[bytes, list[str]]:
        found = self.reader.read(list(images.values()))
        reader = f"text reader {type(self.reader).__name__}{place_of_code(self.reader.read)}"
        if not isinstance(found, Sequence) or len(found) != len(images):
            got = len(found) if isinstance(found, Sequence) else type(found).__name__
            raise WrongReturn(f"{reader} gave {got} for {len(images)} pictures: return a list of lines for each")
        if any(isinstance(one, str) or not all(isinstance(line, str) for line in one) for one in found):
            raise WrongReturn(f"{reader} gave something other than texts: return a list of lines for each picture")
        return dict(zip(images, found, strict=True))

    def _reward(self, lines: Sequence[str], wanted: str) -> float:
        parts = [text for line in lines if (text := self._letters(line))]
        orders = permutations(parts) if len(parts) <= MOST_ORDERED else [tuple(parts)]
        text = self._letters(wanted)
        return max(0.0, 1 - min(edit_distance("".join(order), text) for order in orders) / len(text))

    def _letters(self, text: str) -> str:
        letters = "".join(text.split())
        return letters.casefold() if self.ignore_case else letters

    def _wanted(self, prompt: Prompt) -> str:
        """The text asked for. Raises ValueError if there is none."""
        if self.column is None:
            text = "".join(part for parts in QUOTED.findall(prompt.text) for part in parts)
            remedy = 'put it in quotation marks ("..."), or name the column that holds it'
        else:
            if self.column not in prompt.columns:
                raise ValueError(
                    f"{where(prompt)}prompt {prompt.id!r} has no column {self.column!r}: "
                    f"{nearest(self.column, prompt.columns)}"
                )
            text, remedy = str(prompt.columns[self.column] or ""), f"fill its column {self.column!r}"
        if not text.strip():
            raise ValueError(
                f"{where(prompt)}prompt {prompt.id!r} names no text that is to be in the picture: {remedy}"
            )
        return text


def edit_distance(one: str, two: str) -> int:
    """Least number of letters to insert, delete or replace that turns one text into the other (Levenshtein)."""
    row = list(range(len(two) + 1))
    for n, letter in enumerate(one, start=1):
        corner, row[0] = row[0], n
        for m, other in enumerate(two, start=1):
            corner, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, corner + (letter != other))
    return row[-1]
