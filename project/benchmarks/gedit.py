"""GEdit-Bench: edits of real pictures that people asked for, in English and Chinese, in 11 groups.

Data: the dataset `stepfun-ai/GEdit-Bench` (606 edits in English), as a hub id, folder or file with the columns
`task_type`, `key`, `instruction`, `instruction_language`, `input_image` and `Intersection_exist`; or an instruction
file {key: {"prompt": ..., "id": "fullset/GROUP/LANGUAGE/KEY.png", "edit_type": GROUP}} beside a folder of source
pictures. A key alone does not identify an edit, so that a file of keys may lack some: that of UniWorld has 604.

Protocol: one edited picture for each instruction, `fullset/GROUP/LANGUAGE/KEY.png`. Papers take a version of GPT-4.1
as judge, with VIEScore (see `viescore.py`).

Metric: SC, PQ and O of each edit; their means in a group; the unweighted mean of the 11 groups. `fullset` counts all
edits of a language, `intersection` those that the dataset marks with `Intersection_exist`. A result names the set.

In both modes, an edit is a group, a language and a key, edits without scores are missing, and there is no average where
a group has no scores. `official` counts repeated records twice and takes scores above 10; `strict` refuses repeated
ones and takes scores above 10 for none. The modes differ most in how a judge's answer is read: see `viescore.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from project.benchmarks.scoring import Coverage, Mode, require_known, require_unique
from project.benchmarks.viescore import HIGHEST
from project.core.json_files import read_object, read_rows
from project.data.dataset_files import Rows, folder_rows, hub_rows, parquet_rows

Language = Literal["en", "cn"]
LANGUAGES: tuple[Language, ...] = ("en", "cn")
GROUPS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
HOME = "https://huggingface.co/datasets/stepfun-ai/GEdit-Bench"


@dataclass(frozen=True, kw_only=True)
class GEditItem:
    """An edit to make.

    Args:
        group: One of `GROUPS`.
        language: Of the instruction.
        key: Name of the source picture.
        instruction: What to change.
        intersection: Whether it belongs to the intersection.
        source: The source picture: its path, or its bytes as the dataset has them; None if it is not at hand.
    """

    group: str
    language: Language
    key: str
    instruction: str
    intersection: bool
    source: Path | bytes | None = None

    @property
    def id(self) -> str:
        """`GROUP/LANGUAGE/KEY`."""
        return f"{self.group}/{self.language}/{self.key}"

    @property
    def picture(self) -> str:
        """Where the official layout has the edited picture."""
        return f"fullset/{self.id}.png"


@dataclass(frozen=True, kw_only=True)
class GEditRecord:
    """A judge's scores of the edit `id` (`GROUP/LANGUAGE/KEY`), 0 to 10; None where there is none."""

    id: str
    semantics: float | None
    quality: float | None


@dataclass(frozen=True, kw_only=True)
class GEditMeans:
    """Mean semantic consistency (SC), perceptual quality (PQ) and overall score (O), 0 to 10."""

    semantics: float
    quality: float
    overall: float

    def figures(self) -> dict[str, float]:
        return {"SC": self.semantics, "PQ": self.quality, "O": self.overall}


@dataclass(frozen=True, kw_only=True)
class GEditSet:
    """Figures of a set of edits: group -> means, None without scores; their unweighted mean, None if one is None."""

    groups: Mapping[str, GEditMeans | None]
    average: GEditMeans | None


@dataclass(frozen=True, kw_only=True)
class GEditScores:
    """Figures of GEdit-Bench in one language.

    Args:
        mode: How they were computed.
        language: Of the instructions.
        fullset: Figures of all edits.
        intersection: Figures of those of the intersection.
        coverage: Which edits are missing, of the full set.
    """

    mode: Mode
    language: Language
    fullset: GEditSet
    intersection: GEditSet
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {
            name: {
                **(found.average.figures() if found.average else dict.fromkeys(("SC", "PQ", "O"))),
                "group": {group: means and means.figures() for group, means in found.groups.items()},
            }
            for name, found in (("fullset", self.fullset), ("intersection", self.intersection))
        }

    def table(self) -> list[tuple[str, ...]]:
        """Rows of group, and SC, PQ and O of the full set and of the intersection, the average first."""
        both = (self.fullset, self.intersection)
        heads = tuple(f"{name} ({where})" for where in ("full", "intersection") for name in ("SC", "PQ", "O"))
        rows = [("", *heads), ("average", *(cell for found in both for cell in _cells(found.average)))]
        return rows + [(g, *(cell for found in both for cell in _cells(found.groups[g]))) for g in self.fullset.groups]


def _cells(means: GEditMeans | None) -> tuple[str, ...]:
    return ("-",) * 3 if means is None else tuple(f"{value:.2f}" for value in means.figures().values())


def read_items(path: str | Path, sources: Path | None = None) -> tuple[GEditItem, ...]:
    """The edits of the dataset, or of an instruction file.

    Args:
        path: Hub id, folder of the dataset, `.parquet` or `.jsonl` file with its columns (`input_image` may be a path
            that starts at the folder), or `.json` file of instructions.
        sources: Folder that the paths in an instruction file start at.

    Raises FileNotFoundError for a missing file or source picture, and ValueError (naming the row) for an unknown
    group or language, a missing text, or an edit that occurs twice.
    """
    path = Path(path)
    if path.suffix == ".json":
        items = [_instruction(f"{path}: {key!r}", key, row, sources) for key, row in read_object(path, HOME).items()]
    else:
        rows, folder = _rows(path)
        items = [_row(place, row, folder) for place, row in rows]
    require_unique((item.id for item in items), f"{path}: edits")
    if not items:
        raise ValueError(f"{path}: holds no edits: take it from {HOME}")
    return tuple(items)


def _rows(path: Path) -> tuple[Rows, Path]:
    """The rows, and the folder that paths in them start at."""
    if path.is_dir():
        return folder_rows(path), path
    if path.is_file():
        return (parquet_rows if path.suffix == ".parquet" else read_rows)(path), path.parent
    if not path.suffix and len(path.parts) == 2:
        return hub_rows(str(path)), Path()
    raise FileNotFoundError(f"{path} is missing: give a hub id, folder or file of {HOME}")


def _row(place: str, row: Mapping[str, Any], folder: Path) -> GEditItem:
    found = {name.lower(): value for name, value in row.items()}
    intersection = found.get("intersection_exist")
    if not isinstance(intersection, bool):
        raise ValueError(f"{place}: 'Intersection_exist' is {intersection!r}, neither true nor false")
    image = found.get("input_image")
    if isinstance(image, Mapping):
        image = image.get("bytes")
    if isinstance(image, str):
        image = _there(place, folder / image)
    if not isinstance(image, bytes | Path):
        raise ValueError(f"{place}: 'input_image' is {type(image).__name__}, neither a picture nor a path")
    return _item(
        place, found.get("task_type"), found.get("instruction_language"), found.get("key"), found.get("instruction"),
        intersection, image,
    )  # fmt: skip


def _instruction(place: str, key: str, row: Any, sources: Path | None) -> GEditItem:
    """An edit of an instruction file. It does not say what belongs to the intersection: nothing does."""
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str) or len(row["id"].split("/")) != 4:
        raise ValueError(f"{place}: holds no 'id' of the form fullset/GROUP/LANGUAGE/KEY.png")
    _, group, language, name = row["id"].split("/")
    if row.get("edit_type") != group:
        raise ValueError(f"{place}: 'edit_type' is {row.get('edit_type')!r}, but 'id' says {group!r}")
    source = None if sources is None else _there(place, sources / row["id"])
    return _item(place, group, language, name.removesuffix(".png"), row.get("prompt"), False, source)


def _item(
    place: str, group: Any, language: Any, key: Any, instruction: Any, intersection: bool, source: Path | bytes | None
) -> GEditItem:
    if group not in GROUPS:
        raise ValueError(f"{place}: {group!r} is no group of GEdit-Bench: choose of {', '.join(GROUPS)}")
    if language not in LANGUAGES:
        raise ValueError(f"{place}: {language!r} is no language of GEdit-Bench: choose of {', '.join(LANGUAGES)}")
    for name, value in (("key", key), ("instruction", instruction)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place}: the {name} is {value!r}, not a text")
    return GEditItem(
        group=group,
        language=language,
        key=key,
        instruction=instruction.strip(),
        intersection=intersection,
        source=source,
    )


def _there(place: str, file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{place}: the source picture {file} is missing: take it from {HOME}")
    return file


def score(
    items: Sequence[GEditItem],
    records: Sequence[GEditRecord],
    language: Language,
    mode: Mode,
    groups: Sequence[str] = GROUPS,
) -> GEditScores:
    """Figures of what a judge said of the edits in one language.

    Args:
        items: What was to be edited; items without a record are missing. Those of another language do not count.
        records: Scores, in any order.
        language: Of the instructions.
        mode: See the module.
        groups: Those that the average is over.

    Raises ValueError for groups without items, for records of no item, and in strict mode for several of one.
    """
    if lacking := [group for group in groups if not any(item.group == group for item in items)]:
        raise ValueError(f"there are no edits of the groups {', '.join(lacking)}: score all groups, or name fewer")
    require_unique((item.id for item in items), "items")
    require_known((record.id for record in records), {item.id for item in items}, "records")
    if mode == "strict":
        require_unique((record.id for record in records), "records")
    chosen = {item.id: item for item in items if item.language == language and item.group in groups}
    usable = [record for record in records if record.id in chosen and _usable(record, mode)]
    scored = {record.id for record in usable}
    return GEditScores(
        mode=mode,
        language=language,
        fullset=_set([(chosen[r.id], r) for r in usable], groups),
        intersection=_set([(chosen[r.id], r) for r in usable if chosen[r.id].intersection], groups),
        coverage=Coverage(expected=len(chosen), missing=tuple(name for name in chosen if name not in scored)),
    )


def _usable(record: GEditRecord, mode: Mode) -> bool:
    values = (record.semantics, record.quality)
    return all(
        value is not None and 0 <= value < math.inf and (mode == "official" or value <= HIGHEST) for value in values
    )


def _set(scored: Sequence[tuple[GEditItem, GEditRecord]], groups: Sequence[str]) -> GEditSet:
    """Means of each group and of the groups."""
    by_group: dict[str, list[GEditMeans]] = defaultdict(list)
    for item, record in scored:
        assert record.semantics is not None and record.quality is not None  # Those that are not usable are out.
        by_group[item.group].append(
            GEditMeans(
                semantics=record.semantics,
                quality=record.quality,
                overall=math.sqrt(record.semantics * record.quality),
            )
        )
    means = {group: _means(by_group[group]) for group in groups}
    present = [value for value in means.values() if value is not None]
    return GEditSet(groups=means, average=_means(present) if len(present) == len(groups) else None)


def _means(values: Sequence[GEditMeans]) -> GEditMeans | None:
    if not values:
        return None
    return GEditMeans(
        semantics=sum(value.semantics for value in values) / len(values),
        quality=sum(value.quality for value in values) / len(values),
        overall=sum(value.overall for value in values) / len(values),
    )
