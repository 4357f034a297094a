"""What a benchmark says of itself, so that a folder of pictures that any model drew can be scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from project.benchmarks.scoring import Coverage, Mode
from project.core.growing_rows import Row
from project.judges.base import AnyJudge

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of pictures, in the order in which they are looked for; in capitals too."""


ENDING = "Pictures"
"""Of the names of classes that are benchmarks of pictures."""


class WithId(Protocol):
    """What an item of any benchmark has."""

    @property
    def id(self) -> str:
        """Its name, unique in the benchmark."""


Item = TypeVar("Item", bound=WithId)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFile(Generic[Item]):
    """The items of a benchmark as they were read."""

    items: tuple[Item, ...]
    sha256: str
    """Of what they say, in hexadecimal digits."""
    version: str | None
    """What this published version is called; None for another one, and where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that a benchmark asks for, and where it is."""

    item: str
    sample: int
    """Which of the item's pictures it is, from 0."""
    file: Path | None
    """None if it is missing."""
    tried: tuple[str, ...]
    """Paths from the folder of pictures where it was looked for, without suffix."""
    quarter: int | None = None
    """Which quarter of a 2 x 2 grid, row by row from the top left; None if it is a whole file."""

    @property
    def name(self) -> str:
        """In messages and results, e.g. "00012/3"."""
        return f"{self.item}/{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How a picture counts in the overall figure.

    The figure of a group is the sum of `right` over the sum of `asked`; that of several groups is their weighted mean,
    level by level from the inner ones to the overall figure.
    """

    right: float
    """Its points."""
    asked: float = 1.0
    """The most points that it could have, above 0."""
    groups: tuple[str, ...] = ()
    """Names of the groups that it is in, the outermost first; of one item all pictures are in the same."""
    weight: float = 1.0
    """Of the innermost group among those beside it."""
    unit: str
    """What is drawn together by a bootstrap: the item, or several of one origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The figures of some rows in one mode."""

    headline: float | None
    """The overall figure, 0 to 1; None where there is none."""
    figures: Mapping[str, Any]
    """All figures, nested, as JSON holds them."""
    table: Sequence[tuple[str, ...]]
    """The rows of a table, its header first."""
    coverage: Coverage


class PictureBenchmark(ABC, Generic[Item]):
    """A benchmark that judges pictures in a folder.

    A subclass is called `NamePictures`; the command knows it as `name`. Its constructor takes who judges (a judge, a
    detector) and its own settings, plain values with types; the command offers each of them as an option.

    Args:
        samples: Pictures of each item; a constructor offers it where the protocol has several.

    Raises:
        ValueError: For fewer than one sample.
    """

    standard_samples: ClassVar[int] = 1
    """Pictures of each item by the benchmark's protocol."""
    mixed_sizes: ClassVar[bool] = False
    """Whether `judge` takes pictures of several sizes together: more of them are asked about at a time then."""

    def __init__(self, samples: int | None = None) -> None:
        self.samples = self.standard_samples if samples is None else samples
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: give the number of pictures of each item, at least 1")

    @classmethod
    def name(cls) -> str:
        """How the command and results call it: the class name in lower case without "Pictures"."""
        return cls.__name__.removesuffix(ENDING).lower()

    @property
    def judges(self) -> list[AnyJudge]:
        """Those that it was made with: they may have to be waited for."""
        return [value for value in vars(self).values() if isinstance(value, AnyJudge)]

    @abstractmethod
    def read_items(self, path: Path) -> ItemFile[Item]:
        """The whole benchmark from the official file or folder. Raises FileNotFoundError or ValueError (file:line)."""

    @abstractmethod
    def pictures(self, folder: Path, item: Item) -> list[Picture]:
        """The pictures of an item, all layouts tried in order.

        Args:
            folder: Of all pictures.
            item: What was drawn.

        Raises ValueError where the folder does not say which pictures are meant.
        """

    @abstractmethod
    def place(self, item: Item, sample: int) -> str:
        """Where a drawn picture is saved, from the folder of all, without suffix: `pictures` looks there too."""

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """What a model is told to draw."""

    def source(self, item: Item) -> np.ndarray | None:
        """The picture that the item edits, uint8 [height, width, 3]; None where nothing is edited."""
        return None

    @abstractmethod
    def made_by(self) -> dict[str, str]:
        """Who judges and how: what makes rows of one folder comparable."""

    @abstractmethod
    def preflight(self, items: Sequence[Item]) -> None:
        """Checks that the parts can judge pictures of these items.

        Raises ValueError or FileNotFoundError with the remedy.
        """

    @abstractmethod
    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[Item], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        """What is found in each picture: what a JSON row holds, or the reason why it could not be judged.

        Args:
            images: uint8 [height, width, 3], all of one size unless `mixed_sizes`.
            items: What each shows.
            pictures: Which each is.

        Raises ScoringFailed if nobody judges any longer, and ValueError if it cannot judge these pictures.
        """

    @abstractmethod
    def worth(self, item: Item, row: Row) -> float:
        """How good the picture of a row is by what was found in it, 0 to 1: for comparisons item by item.

        Of a benchmark that calls pictures right or wrong, 1 or 0.
        """

    def counted(self, item: Item, row: Row) -> Counted:
        """How the picture of a row counts in the overall figure; if nothing else is said, by its worth alone."""
        return Counted(right=self.worth(item, row), unit=item.id)

    @abstractmethod
    def told(self, item: Item, row: Row) -> list[str]:
        """What was found, in a few short lines for people: beside the picture in a sheet."""

    @abstractmethod
    def score(self, items: Sequence[Item], rows: Sequence[Row], mode: Mode) -> Scored:
        """The figures of rows, each with `id`, `sample` and what `judge` gave. Items without rows are missing."""


def numbered(before: str, number: int) -> tuple[str, str, str]:
    """Usual ways to write the number of a picture after what stands before it."""
    return f"{before}{number:04d}", f"{before}{number:05d}", f"{before}{number}"


def first_file(folder: Path, stems: Iterable[str]) -> tuple[Path | None, tuple[str, ...]]:
    """The first picture there is, and all paths without suffix that were tried, from the folder."""
    tried = tuple(stems)
    for stem in tried:
        for suffix in SUFFIXES:
            for spelling in (suffix, suffix.upper()):
                if (file := folder / f"{stem}{spelling}").is_file():
                    return file, tried
    return None, tried
