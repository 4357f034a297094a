"""ImgEdit-Bench, its basic suite: edits of nine types, each scored by a judge in three respects, 1 to 5.

Data: `basic_edit.json` of https://github.com/PKU-YuanGroup/ImgEdit (folder Benchmark/Basic), {key: {"id": path of the
source picture, "prompt": the instruction, "edit_type": its type}}, and the source pictures, which are in Benchmark.tar
of the dataset `sysuyy/ImgEdit`.

Protocol: one edited picture for each instruction, `KEY.png`. A judge (papers take gpt-4o-2024-11-20) sees the source
and the edited picture and writes a line "NAME: SCORE" for each respect, after a line of reasoning.

Metric: mean of the three scores of an edit; mean of the edits of a type; mean of all edits.

The official scorer
  - takes the mean of whatever scores it finds in lines, two of them for example;
  - skips an edit without any;
  - counts an edit without a type in the overall score, and in no type;
  - rounds the score of an edit to 2 places before it averages, and every mean again.
`strict` wants three scores from 1 to 5, counts the edit as missing otherwise, refuses records of unknown edits, and
rounds nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.asking import Enquiry
from project.benchmarks.scoring import Coverage, Mode, UnparsedAnswer, mean, require_known, require_unique
from project.core.json_files import read_object
from project.judges.free_text import FreeTextRequest

HOME = "https://github.com/PKU-YuanGroup/ImgEdit"
TEMPLATE_VERSION = "1"
HIGHEST = 5
NAMES = ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity")
RESPECTS = len(NAMES)
PLACES = 2
"""Decimal places of official figures."""
_LINE = re.compile(r"[:\uff1a][ \t*_`]*(\d+(?:\.\d+)?)[ \t*_`]*(/[ \t]*5)?[ \t*_`.]*$", re.MULTILINE)
_OFFICIAL = re.compile(r":[ \t]*(\d+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ImgEditItem:
    """An edit to make.

    Args:
        id: Its key.
        type: Type of the edit, e.g. "replace".
        instruction: What to change.
        source: The source picture.
    """

    id: str
    type: str
    instruction: str
    source: Path


@dataclass(frozen=True, kw_only=True)
class ImgEditRecord:
    """A judge's answer to the edit `id`; None if there is none."""

    id: str
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class ImgEditScores:
    """Figures of ImgEdit-Bench, 1 to 5.

    Args:
        mode: How they were computed.
        edits: Edit -> mean of its scores.
        types: Type -> mean of its edits, None without scores.
        overall: Mean of all edits; None without scores.
        coverage: Which edits are missing.
    """

    mode: Mode
    edits: Mapping[str, float]
    types: Mapping[str, float | None]
    overall: float | None
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {"overall": self.overall, "type": dict(self.types)}

    def table(self) -> list[tuple[str, ...]]:
        """Rows of type and score, the overall score first."""
        values = {"overall": self.overall, **self.types}
        return [("", "score"), *((name, "-" if v is None else f"{v:.2f}") for name, v in values.items())]


def read_items(path: Path, sources: Path | None = None) -> tuple[ImgEditItem, ...]:
    """The edits of a file such as `basic_edit.json`.

    Args:
        path: The file.
        sources: Folder that the paths of the source pictures start at; that of the file, if None.

    Raises FileNotFoundError for a missing file or source picture, and ValueError (naming the edit) for an edit without
    its texts.
    """
    folder = path.parent if sources is None else sources
    items = []
    for key, row in read_object(path, f"the folder Benchmark/Basic of {HOME}").items():
        texts = [row.get(name) if isinstance(row, Mapping) else None for name in ("edit_type", "prompt", "id")]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{path}: {key!r}: give 'edit_type', 'prompt' and 'id', a text each")
        kind, instruction, source = map(str, texts)
        if not (folder / source).is_file():
            raise FileNotFoundError(
                f"{path}: {key!r}: the source picture {folder / source} is missing: take it from Benchmark.tar of the "
                "dataset sysuyy/ImgEdit, and give the folder that its paths start at"
            )
        items.append(ImgEditItem(id=key, type=kind.strip(), instruction=instruction.strip(), source=folder / source))
    return tuple(items)


def judge_text(item: ImgEditItem) -> str:
    """What a judge is asked beside the source and the edited picture, in this order."""
    return (
        f"The second picture is an edit of the first one, of the type {item.type!r}. The editor got this instruction: "
        f"{item.instruction}\n\n"
        "Score the edit in three respects, each with a whole number from 1 to 5.\n"
        f"{NAMES[0]}: 1 if nothing that was asked for was done, 3 if it was done in part, 5 if all of it was done and "
        "nothing else.\n"
        f"{NAMES[1]}: 1 if the edit is broken or obviously pasted in, 3 if faults can be seen, 5 if nobody would see "
        "that the picture was edited.\n"
        f"{NAMES[2]}: 1 if shapes, light or what should have stayed are badly damaged, 3 if some details were lost, 5 "
        "if everything is sound and all that should stay is as it was.\n"
        f"Where {NAMES[0]} is 2 or less, the other two scores are not above it.\n\n"
        "Write four lines and nothing else:\nBrief reasoning: one short sentence\n"
        + "\n".join(f"{name}: N" for name in NAMES)
    )


def answer_text(scores: Sequence[float]) -> str:
    """Three scores as a judge writes them, in the order of `NAMES`."""
    return "\n".join(f"{name}: {score:g}" for name, score in zip(NAMES, scores, strict=True))


def enquiry(item: ImgEditItem, source: np.ndarray, edited: np.ndarray) -> Enquiry[tuple[float, ...], tuple[float, ...]]:
    """How a judge is asked for the three scores of an edit; pictures are uint8 [height, width, 3]."""
    return Enquiry(
        id=item.id,
        template=f"imgedit-{TEMPLATE_VERSION}",
        requests=(FreeTextRequest(text=judge_text(item), pictures=(source, edited)),),
        read=parse_scores,
        record=lambda answers: answers[0],
    )


def parse_scores(text: str, mode: Mode = "strict") -> tuple[float, ...]:
    """The scores at the ends of a judge's lines.

    Official: whole numbers after a colon, as many as there are. Strict: three from 1 to 5 ("4/5" is 4).

    Raises UnparsedAnswer otherwise.
    """
    if mode == "official":
        scores = tuple(float(number) for number in _OFFICIAL.findall(text))
        if not scores:
            raise UnparsedAnswer("there are no scores", text)
        return scores
    scores = tuple(float(number) for number, _ in _LINE.findall(text))
    if len(scores) != RESPECTS:
        raise UnparsedAnswer(f"there are {len(scores)} scores, not {RESPECTS}", text)
    if not all(1 <= score <= 5 for score in scores):
        raise UnparsedAnswer("a score is not from 1 to 5", text)
    return scores


def score(types: Mapping[str, str], records: Sequence[ImgEditRecord], mode: Mode) -> ImgEditScores:
    """Figures of what a judge said of the edits.

    Args:
        types: Edit -> its type; edits without a record are missing.
        records: Answers, in any order.
        mode: See the module.

    Raises ValueError for several records of one edit, and in strict mode for records of unknown edits.
    """
    require_unique((record.id for record in records), "records")
    if mode == "strict":
        require_known((record.id for record in records), types, "records")
    edits: dict[str, float] = {}
    by_type: dict[str, list[float]] = defaultdict(list)
    for record in records:
        try:
            scores = parse_scores(record.answer or "", mode)
        except UnparsedAnswer:
            continue
        edits[record.id] = _figure(sum(scores) / len(scores), mode)
        if record.id in types:
            by_type[types[record.id]].append(edits[record.id])
    return ImgEditScores(
        mode=mode,
        edits=edits,
        types={kind: _mean(by_type[kind], mode) for kind in sorted(set(types.values()))},
        overall=_mean(list(edits.values()), mode),
        coverage=Coverage(expected=len(types), missing=tuple(name for name in types if name not in edits)),
    )


def _mean(values: Sequence[float], mode: Mode) -> float | None:
    value = mean(values)
    return None if value is None else _figure(value, mode)


def _figure(value: float, mode: Mode) -> float:
    return value if mode == "strict" else round(value, PLACES)
