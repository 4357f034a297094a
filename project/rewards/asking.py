"""What rewards that ask a judge share: equal questions are asked once, and what comes back is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from project.core.digest import image_digest
from project.core.metrics import Metric
from project.judges.base import Judge, check_answers
from project.trajectory import Question, Trajectory


def ask(
    judge: Judge, trajectories: Sequence[Trajectory], questions: Sequence[Sequence[Question]]
) -> list[list[float | None]]:
    """The judge's confidences about each trajectory's image, in [0, 1]; None = unanswered.

    `questions[n]` are asked about trajectory n (maybe none). Questions of one wording about equal images of one prompt
    are asked once: a model that draws the same picture twice costs nothing twice.

    Raises:
        WrongReturn: if the judge does not give one number in [0, 1], or None, per question.
    """
    places: dict[tuple[bytes, str], int] = {}
    images: list[np.ndarray] = []
    asked: list[dict[str, Question]] = []
    place_N: list[int | None] = []
    for trajectory, own in zip(trajectories, questions, strict=True):
        if not own:
            place_N.append(None)
            continue
        image = trajectory.image.pixels_HWC.numpy()
        place = places.setdefault((image_digest(image), trajectory.prompt.text), len(images))
        if place == len(images):
            images.append(image)
            asked.append({})
        asked[place] |= {question.text: question for question in own}
        place_N.append(place)
    if not images:
        return [[] for _ in trajectories]
    answers = judge.answer(images, [list(wordings.values()) for wordings in asked], [text for _, text in places])
    check_answers(answers, [len(wordings) for wordings in asked], judge.name, judge.answer)
    table = [dict(zip(wordings, row, strict=True)) for wordings, row in zip(asked, answers, strict=True)]
    return [
        [] if place is None else [table[place][question.text] for question in own]
        for place, own in zip(place_N, questions, strict=True)
    ]


def judge_metrics(counters: Mapping[str, Metric]) -> dict[str, Metric]:
    """A judge's metrics under the names that are logged, `judge/...`."""
    return {f"judge/{name.removeprefix('judge/')}": value for name, value in counters.items()}
