"""GenEval's prompts, and what their pictures must show."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project.benchmarks.versions import file_version
from project.core.json_files import read_rows
from project.core.nearest import nearest

PUBLISHED = {
    "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13": "evaluation_metadata.jsonl of GenEval",
    "09472cc9c24e225417b1d5df27e688e5f2a0fcac9ec772f33d9debe4e5d49f27": "evaluation_metadata_long.jsonl of BAGEL",
}
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's classes in COCO's order."""
RENAMED = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""COCO's classes that GenEval's prompts call otherwise."""
CLASSES = tuple(RENAMED.get(name, name) for name in COCO)
"""The classes by GenEval's names, in COCO's order: what a detector's class numbers mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """At least so many objects of a class, perhaps of a colour and in a place."""

    class_name: str
    count: int
    color: str | None = None
    relation: str | None = None
    """One of `RELATIONS`: where they are, seen from the objects of another requirement."""
    target: int = 0
    """Which requirement that is, by its number; without meaning if there is no relation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """Fewer than so many objects of a class."""

    class_name: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A prompt of GenEval."""

    id: str
    tag: str
    prompt: str
    include: tuple[Include, ...]
    exclude: tuple[Exclude, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is about counting: then the detector must be surer."""
        return self.tag == "counting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A file of prompts."""

    items: tuple[Item, ...]
    sha256: str


def read_items(file: str | Path, classes: Sequence[str] = CLASSES) -> Items:
    """The items of a file such as `evaluation_metadata.jsonl`, in its order.

    Another version than the published ones is warned of.

    Args:
        file: one JSON object a line, see `item_of`.
        classes: that the detector knows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file and line, for what is no item, or names a class or colour that nothing can find;
            for a file without items.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: take evaluation_metadata.jsonl from the folder prompts/ of "
            "https://github.com/djghosh13/geneval and give its path"
        )
    items = tuple(item_of(row, f"{n:05d}", place, classes) for n, (place, row) in enumerate(read_rows(path)))
    if not items:
        raise ValueError(f"{path} holds no item: download it again")
    return Items(items=items, sha256=file_version(path, PUBLISHED))


def item_of(row: Mapping[str, Any], id: str, place: str = "", classes: Sequence[str] | None = None) -> Item:
    """The item that a row of the metadata says.

    Args:
        row: with the keys tag, prompt, include (objects with class and count, perhaps color and position: [relation,
            number of a requirement before it]) and perhaps exclude (objects with class and count).
        id: of the item.
        place: of the row, for messages.
        classes: that may be asked for; any, if None.

    Raises:
        ValueError: for anything else.
    """
    try:
        include = tuple(_include(part, n, classes) for n, part in enumerate(_objects(row, "include")))
        exclude = tuple(
            Exclude(class_name=_class(part, classes), count=_count(part)) for part in _objects(row, "exclude")
        )
        if not include and not exclude:
            raise ValueError("asks for nothing: give it `include`")
        return Item(id=id, tag=_text(row, "tag"), prompt=_text(row, "prompt"), include=include, exclude=exclude)
    except ValueError as error:
        raise ValueError(f"{place or id}: {error}") from None


def class_remedy(name: str, classes: Sequence[str] = CLASSES) -> str:
    """What to write instead of a class that nothing can find: a near name, or where the names are."""
    if near := difflib.get_close_matches(RENAMED.get(name, name), classes, n=1):
        return f"did you mean {near[0]!r}?"
    return f"give one of COCO's classes by GenEval's names, such as {', '.join(classes[:3])}"


def _include(part: Mapping[str, Any], number: int, classes: Sequence[str] | None) -> Include:
    color = part.get("color")
    if color is not None and color not in COLORS:
        raise ValueError(f"colour {color!r} is unknown: {nearest(str(color), COLORS)}")
    relation: str | None = None
    target = 0
    if "position" in part:
        match part["position"]:
            case [str(name), int(place)] if name in RELATIONS and 0 <= place < number:
                relation, target = name, place
            case other:
                raise ValueError(
                    f"position {other!r}: give one of {', '.join(RELATIONS)}, and the number of a requirement before "
                    f"this one (number {number})"
                )
    return Include(class_name=_class(part, classes), count=_count(part), color=color, relation=relation, target=target)


def _objects(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    parts = row.get(key, [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{key!r} is {parts!r}: give a list of objects")
    return parts


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {value!r}: give a text")
    return value


def _class(part: Mapping[str, Any], classes: Sequence[str] | None) -> str:
    name = _text(part, "class")
    if classes is not None and name not in classes:
        raise ValueError(f"the detector knows no class {name!r}: {class_remedy(name, classes)}")
    return name


def _count(part: Mapping[str, Any]) -> int:
    count = part.get("count")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"'count' is {count!r}: give a whole number of at least 1")
    return count
