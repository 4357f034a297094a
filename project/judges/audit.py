"""How far a judge can be trusted: its answers to probes, questions about pictures whose true answer is known.

Confidences are those in "yes", in [0, 1]; None = unanswered. The judge *says* yes above 1/2, as the binary form of
`DVReward` does. Shape suffixes: N probes that were answered, B bins of confidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from project.core.atomic_files import write_atomically
from project.core.digest import digest, image_digest
from project.core.images import read_picture_of
from project.core.json_files import append_row, json_value, read_lines
from project.data.prompts import read_prompts
from project.judges.base import Judge
from project.trajectory import Question

BINS = 10
"""Of equal width, for calibration."""
ALL = "all"
"""Name of the figures over all tags."""
YES_OR_NO = {"yes": True, "no": False, True: True, False: False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A question about a picture, and its true answer."""

    image: np.ndarray
    """uint8 [height, width, 3]."""
    question: Question
    truth: bool
    prompt: str
    """What the picture was made for."""

    @cached_property
    def id(self) -> str:
        """Hash of all that the judge is given."""
        return digest(image_digest(self.image), self.prompt.encode(), self.question.text.encode()).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the answers to some probes are worth; None where nothing was answered that the figure is about.

    Attributes:
        probes: how many were asked.
        unanswered: share of them.
        accuracy: share of the answered ones where the judge says what is true.
        false_positive_rate: share of yes among those whose true answer is no.
        false_negative_rate: share of no among those whose true answer is yes.
        auc: share of the pairs of a true yes and a true no in which the true yes has the higher confidence (ties count
            half): what a reward of confidences lives on, wherever the judge's threshold lies.
        ece: expected calibration error: the mean distance, over `BINS` bins weighed by their probes, between mean
            confidence and share of true yes (Guo et al. 2017, for the confidence in yes).
        brier: mean squared distance between confidence and truth (0 or 1).
    """

    probes: int
    unanswered: float
    accuracy: float | None
    false_positive_rate: float | None
    false_negative_rate: float | None
    auc: float | None
    ece: float | None
    brier: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Bins of confidence in yes; NaN where a bin is empty."""

    count_B: np.ndarray
    confidence_B: np.ndarray
    """Mean confidence."""
    truth_B: np.ndarray
    """Share whose true answer is yes."""


def read_probes(file: str | Path) -> list[Probe]:
    """The probes of a JSONL file, one a row: `image` (path from the file's folder), `question`, `answer` (yes or no,
    or true or false), `prompt` (what the picture was made for) and, optionally, `tag`.

    Raises FileNotFoundError or ValueError (file:line and remedy) for what cannot be used.
    """
    probes = []
    for row in read_prompts(file):
        text, answer = row.columns.get("question"), row.columns.get("answer")
        if row.image is None:
            raise ValueError(f"{row.place}: lacks 'image': give the path of the picture that is asked about")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{row.place}: lacks 'question' (a text that is answered by yes or no): add it")
        if not isinstance(answer, str | bool) or answer not in YES_OR_NO:
            raise ValueError(f'{row.place}: \'answer\' is {answer!r}: give the true answer, "yes" or "no"')
        probes.append(
            Probe(
                image=read_picture_of(row.place, row.image),
                question=Question(text=text, tag=str(row.columns.get("tag") or "")),
                truth=YES_OR_NO[answer],
                prompt=row.text,
            )
        )
    return probes


def ask(
    judge: Judge, probes: Sequence[Probe], file: Path, batch_size: int = 32
) -> Iterator[tuple[Probe, float | None]]:
    """Each probe with the judge's confidence.

    Answers are kept in `file` (JSONL), batch by batch: asked again, for instance after an interruption, the same judge
    is only asked what it has not answered. Those known from before come first.
    """
    known = _kept(file, judge.name)
    yield from ((probe, known[probe.id]) for probe in probes if probe.id in known)
    rest = [probe for probe in probes if probe.id not in known]
    for start in range(0, len(rest), batch_size):
        batch = rest[start : start + batch_size]
        rows = judge.answer([p.image for p in batch], [[p.question] for p in batch], [p.prompt for p in batch])
        answers = [confidence for (confidence,) in rows]
        for probe, confidence in zip(batch, answers, strict=True):
            row = {"judge": judge.name, "probe": probe.id, "confidence": confidence}
            told = {"question": probe.question.text, "tag": probe.question.tag, "truth": probe.truth}
            append_row(file, row | told)
        yield from zip(batch, answers, strict=True)


def by_tag(answers: Sequence[tuple[Probe, float | None]]) -> dict[str, Figures]:
    """The figures of all probes, then of each tag."""
    tags = sorted({probe.question.tag for probe, _ in answers})
    chosen: dict[str, list[tuple[Probe, float | None]]] = {ALL: list(answers)}
    chosen |= {tag or "(no tag)": [(p, c) for p, c in answers if p.question.tag == tag] for tag in tags}
    return {name: figures([c for _, c in some], [p.truth for p, _ in some]) for name, some in chosen.items()}


def figures(confidences: Sequence[float | None], truths: Sequence[bool]) -> Figures:
    """The figures of some probes. Raises ValueError if there are none, or not one truth each."""
    if not confidences or len(confidences) != len(truths):
        raise ValueError(f"{len(confidences)} confidences and {len(truths)} truths: give one truth each, at least one")
    confidence_N, truth_N = _answered(confidences, truths)
    said_N = confidence_N > 0.5
    bins = reliability(confidences, truths)
    gaps_B = np.abs(bins.confidence_B - bins.truth_B)
    return Figures(
        probes=len(confidences),
        unanswered=1 - len(confidence_N) / len(confidences),
        accuracy=_mean(said_N == truth_N),
        false_positive_rate=_mean(said_N[~truth_N]),
        false_negative_rate=_mean(~said_N[truth_N]),
        auc=auc(confidence_N[truth_N], confidence_N[~truth_N]),
        ece=float(np.nansum(gaps_B * bins.count_B) / len(confidence_N)) if len(confidence_N) else None,
        brier=_mean((confidence_N - truth_N) ** 2),
    )


def auc(yes_N: np.ndarray, no_M: np.ndarray) -> float | None:
    """Area under the ROC curve: how often one of `yes_N` exceeds one of `no_M` (Mann-Whitney); None without either."""
    if not len(yes_N) or not len(no_M):
        return None
    ordered_M = np.sort(no_M)
    below_N = np.searchsorted(ordered_M, yes_N, side="left") + np.searchsorted(ordered_M, yes_N, side="right")
    return float(below_N.mean() / 2 / len(no_M))


def reliability(confidences: Sequence[float | None], truths: Sequence[bool]) -> Reliability:
    """What is true at each confidence."""
    confidence_N, truth_N = _answered(confidences, truths)
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    count_B = np.bincount(bin_N, minlength=BINS)
    sums = [np.bincount(bin_N, weights=values, minlength=BINS) for values in (confidence_N, truth_N)]
    confidence_B, truth_B = (np.divide(s, count_B, out=np.full(BINS, np.nan), where=count_B > 0) for s in sums)
    return Reliability(count_B=count_B, confidence_B=confidence_B, truth_B=truth_B)


def table(found: Mapping[str, Figures]) -> str:
    """One line a tag; "-" where nothing was measured."""
    heads = ("probes", "accuracy", "false yes", "false no", "AUC", "ECE", "Brier", "unanswered")
    width = max(map(len, found))
    lines = [f"{'tag':<{width}}" + "".join(f"  {head:>10}" for head in heads)]
    for tag, of in found.items():
        rates = (of.false_positive_rate, of.false_negative_rate)
        shares = (of.accuracy, *rates, of.auc, of.ece, of.brier, of.unanswered)
        cells = [str(of.probes), *("-" if share is None else f"{share:.3f}" for share in shares)]
        lines.append(f"{tag:<{width}}" + "".join(f"  {cell:>10}" for cell in cells))
    return "\n".join(lines) + "\n"


def _answered(confidences: Sequence[float | None], truths: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    answered = [(c, t) for c, t in zip(confidences, truths, strict=True) if c is not None]
    return np.array([c for c, _ in answered], dtype=float), np.array([t for _, t in answered], dtype=bool)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _kept(file: Path, judge: str) -> dict[str, float]:
    """Confidence by probe of what `judge` answered before; what cannot be read, or is no answer, is dropped."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for _, line in read_lines(file) if file.is_file() else ():
        try:
            row = json_value(line)
        except ValueError:
            continue  # The last line of a run that was killed.
        if isinstance(row, dict) and row.get("confidence") is not None:
            rows.append(row)
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))
    return {row["probe"]: row["confidence"] for row in rows if row["judge"] == judge}
