"""Decomposing many prompts: in parallel, and never twice.

What is settled goes line by line into a journal beside the output, so that a run that was killed goes on where it
stood. The journal's last line may be torn; its prompt is then asked about again.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from project.decomposition.base import Decomposer, DecomposerUnavailable
from project.trajectory import Prompt, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a prompt: questions, or the reason why there are none."""

    id: str
    prompt: str
    questions: tuple[Question, ...] = ()
    reason: str = ""
    """Why the prompt cannot be decomposed; empty if it was."""
    open: bool = False
    """The decomposer could not be asked, which says nothing about the prompt: not settled."""


class Journal:
    """The settled outcomes of one output file, made by one decomposer.

    The file appears with the first of them.

    Raises:
        ValueError: if it was begun by another decomposer, or is no journal.
    """

    def __init__(self, file: Path, decomposer: str) -> None:
        self.file = file
        self.outcomes: dict[str, Outcome] = {}
        self.decomposer = decomposer
        if file.exists():
            self._read()

    def add(self, outcome: Outcome) -> None:
        """Keeps a settled outcome, on disk too."""
        if not self.file.exists():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._append({"decomposer": self.decomposer})
        self.outcomes[outcome.id] = outcome
        self._append({key: value for key, value in asdict(outcome).items() if key != "open"})

    def settled(self, prompt: Prompt) -> Outcome | None:
        """The outcome of this very prompt; None if it is open, or its text was changed since."""
        outcome = self.outcomes.get(prompt.id)
        return outcome if outcome is not None and outcome.prompt == prompt.text else None

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _read(self) -> None:
        content = self.file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.file.open("r+b") as stream:
                stream.truncate(len(whole))
        if not whole:
            self.file.unlink()
            return
        header, *entries = whole.splitlines()
        try:
            begun = json.loads(header)["decomposer"]
            for entry in map(json.loads, entries):
                questions = tuple(
                    Question(**{**question, "depends_on": tuple(question["depends_on"])})
                    for question in entry.pop("questions")
                )
                self.outcomes[entry["id"]] = Outcome(**entry, questions=questions)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file} is no journal of begun work ({error}): remove it to start anew") from error
        if begun != self.decomposer:
            raise ValueError(
                f"{self.file} was begun with {begun}, not with {self.decomposer}: give the same decomposer to go on, "
                "or remove the file to start anew"
            )


def decompose_all(
    prompts: Sequence[Prompt], decomposer: Decomposer, concurrency: int
) -> Generator[Outcome, None, None]:
    """The outcomes of the prompts, in the order in which they are known.

    Ends early, with the others open, when the decomposer is unavailable for good.
    """
    stopped = threading.Event()
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="decompose")
    try:
        pending: list[Future[Outcome | None]] = [
            pool.submit(_outcome, decomposer, prompt, stopped) for prompt in prompts
        ]
        for future in as_completed(pending):
            if (outcome := future.result()) is not None:
                yield outcome
    finally:
        # Also on Ctrl-C: nobody waits on, and what has not begun never does.
        stopped.set()
        decomposer.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(decomposer: Decomposer, prompt: Prompt, stopped: threading.Event) -> Outcome | None:
    if stopped.is_set():
        return None
    try:
        return Outcome(id=prompt.id, prompt=prompt.text, questions=decomposer.decompose(prompt.text))
    except ValueError as error:
        return Outcome(id=prompt.id, prompt=prompt.text, reason=str(error))
    except DecomposerUnavailable as error:
        if error.for_good:
            stopped.set()
        return Outcome(id=prompt.id, prompt=prompt.text, reason=str(error), open=True)


def summary(outcomes: Sequence[Outcome], decomposer: str) -> dict[str, Any]:
    """Prompts, questions per prompt and tags, as JSON values."""
    valid = [outcome for outcome in outcomes if not outcome.reason]
    asked = [question for outcome in valid for question in outcome.questions]
    return {
        "decomposer": decomposer,
        "prompts": len(outcomes),
        "written": len(valid),
        "invalid": len(outcomes) - len(valid),
        "questions_per_prompt": {
            kind: _spread([sum(q.kind == kind for q in outcome.questions) for outcome in valid])
            for kind in ("semantic", "quality")
        },
        "with_dependencies": sum(bool(question.depends_on) for question in asked) / len(asked) if asked else 0.0,
        "tags": {
            kind: dict(Counter(q.tag for q in asked if q.kind == kind).most_common())
            for kind in ("semantic", "quality")
        },
    }


def _spread(counts: Sequence[int]) -> dict[str, float]:
    if not counts:
        return {}
    return {"mean": sum(counts) / len(counts), "least": min(counts), "most": max(counts)}
