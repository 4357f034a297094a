"""GenEval's figures, from the verdicts on its pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from project.benchmarks.geneval.items import Item
from project.benchmarks.scoring import Coverage, Mode, mean, percent, require_known, require_unique

SAMPLES = 4
"""Pictures of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """The verdict on one picture."""

    item: str
    """Id of its prompt."""
    sample: int
    """Which of the prompt's pictures it is, from 0."""
    tag: str
    correct: bool
    reason: str = ""

    @property
    def name(self) -> str:
        return picture_name(self.item, self.sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many pictures or prompts are correct."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class GenEvalScores:
    """The figures. One is None where pictures are missing that it needs: all of them (`strict`), or any."""

    mode: Mode
    overall: float | None
    """Unweighted mean over tags of the share of correct pictures."""
    tags: Mapping[str, Share | None]
    images: Share | None
    """Correct pictures."""
    prompts: Share | None
    """Prompts of which at least one picture is correct."""
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        shares = {"images": self.images, "prompts": self.prompts}
        return {
            "overall": self.overall,
            **{name: share.value if share else None for name, share in shares.items()},
            "tag": {tag: share.value if share else None for tag, share in self.tags.items()},
        }


def picture_name(item: str, sample: int) -> str:
    """Name of a prompt's picture in messages and coverage, e.g. "00012/3"."""
    return f"{item}/{sample}"


def score(rows: Sequence[PictureRow], items: Sequence[Item], mode: Mode, samples: int = SAMPLES) -> GenEvalScores:
    """The figures of a run.

    `official`: over the pictures that are there; a tag without any does not count in the overall mean, and tags are in
    the order of the rows. `strict`: over all pictures of all items; a tag of which a picture is missing has no figure,
    and then there is no overall figure either. Where nothing is missing both give the same figures.

    Args:
        rows: a verdict for each picture that was scored.
        items: of the whole benchmark.
        mode: see above.
        samples: pictures that each item should have.

    Raises:
        ValueError: for two rows of one picture, for rows of pictures that the benchmark does not have, and for two
            items of one id.
    """
    names = [row.name for row in rows]
    expected = [picture_name(item.id, sample) for item in items for sample in range(samples)]
    require_unique(expected, "items of the benchmark")
    require_unique(names, "verdicts on pictures")
    require_known(names, set(expected), "verdicts on pictures")
    there = set(names)
    missing = tuple(name for name in expected if name not in there)
    by_tag = _by(rows, "tag")
    tags = {tag: _share(row.correct for row in found) for tag, found in by_tag.items()}
    images = _share(row.correct for row in rows)
    prompts = _share(any(row.correct for row in found) for found in _by(rows, "item").values())
    if mode == "strict":
        wanted = Counter(item.tag for item in items)
        tags = {
            tag: tags[tag] if len(by_tag.get(tag, ())) == number * samples else None for tag, number in wanted.items()
        }
        if missing:
            images = prompts = None
    known = [share.value for share in tags.values() if share is not None]
    return GenEvalScores(
        mode=mode,
        overall=mean(known) if len(known) == len(tags) else None,
        tags=tags,
        images=images,
        prompts=prompts,
        coverage=Coverage(expected=len(expected), missing=missing),
    )


def table(scores: GenEvalScores) -> str:
    """The figures in percent, one line a tag; a dash where there is none."""
    shares = {**scores.tags, "correct images": scores.images, "correct prompts": scores.prompts}
    lines = [f"{name:<16} {percent(share.value if share else None):>7}" for name, share in shares.items()]
    return "\n".join([*lines, f"{'overall':<16} {percent(scores.overall):>7}", f"({scores.mode}; {scores.coverage})"])


def official_report(scores: GenEvalScores) -> str:
    """The figures as the official script prints them.

    Raises ValueError for scores in strict mode, and for those of no picture.
    """
    if scores.mode != "official" or scores.images is None or scores.prompts is None or scores.overall is None:
        raise ValueError("the official report is made of the official figures of at least one picture")
    lines = [
        "Summary",
        "=======",
        f"Total images: {scores.images.total}",
        f"Total prompts: {scores.prompts.total}",
        f"% correct images: {scores.images.value:.2%}",
        f"% correct prompts: {scores.prompts.value:.2%}",
        "",
        "Task breakdown",
        "==============",
    ]
    for tag, share in scores.tags.items():
        if share is not None:
            lines.append(f"{tag:<16} = {share.value:.2%} ({share.correct} / {share.total})")
    return "\n".join([*lines, "", f"Overall score (avg. over tasks): {scores.overall:.5f}", ""])


def _share(correct: Iterable[bool]) -> Share | None:
    values = list(correct)
    return Share(correct=sum(values), total=len(values)) if values else None


def _by(rows: Sequence[PictureRow], key: Literal["tag", "item"]) -> dict[str, list[PictureRow]]:
    groups: dict[str, list[PictureRow]] = {}
    for row in rows:
        groups.setdefault(getattr(row, key), []).append(row)
    return groups
