"""A reward that a server of yours computes, in an environment of its own. README.md documents what is sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from project.core.digest import digest, image_digest
from project.core.metrics import Mean, Metric, Sum
from project.core.nearest import nearest
from project.judges.answer_store import AnswerStore
from project.judges.cache import FILE
from project.judges.openai.answers import answers_of
from project.judges.openai.failures import Failure
from project.judges.openai.pictures import data_uri
from project.judges.openai.server import Service
from project.judges.openai.servers import Servers
from project.rewards.base import Reward, RewardOutput, where
from project.trajectory import Prompt, Trajectory

TIMEOUT = 60.0
"""Longest wait for an answer, if the service's options do not say [s]."""


class ServiceReward(Reward):
    """Asks an HTTP service for one number per sample: a batch of pictures and prompts in, numbers or null out.

    Failures are treated as by `OpenAIJudge`: a failed request is tried again, elsewhere if there are several servers;
    samples that get no number are not scored and not trained; while every server is away, training waits.

    Args:
        service: address of the service, and how it is asked.
        scorer: name and version of what the service computes, for metrics and for the cache.
        cache: folder that keeps the answers, on a local disk; None = no cache. It needs `scorer`.
        columns: columns of the prompt file to send.
        texts: send the reasoning too.
        batch_size: samples in a request.
        image_size: height and width of the picture that `preflight` sends [pixels]; give the size of your pictures.
        max_bytes: largest size of the cache; beyond it the least recently used answers are removed.
        weight: factor in the sum of rewards; with 0 it is only logged.
        text_only: it counts for the text objective alone.

    Raises:
        ValueError: for a missing key, a cache without `scorer`, or numbers out of range.
    """

    def __init__(
        self,
        service: Service,
        scorer: str = "",
        cache: str | None = None,
        columns: list[str] | None = None,
        texts: bool = False,
        batch_size: int = 8,
        image_size: int = 512,
        max_bytes: int = 1_000_000_000,
        weight: float = 1.0,
        text_only: bool = False,
    ) -> None:
        super().__init__(weight=weight, text_only=text_only)
        if batch_size < 1 or image_size < 1:
            raise ValueError(f"{batch_size=}, {image_size=}: give 1 or more")
        if cache is not None and not scorer:
            raise ValueError("cache keeps what a scorer says: name it and its version as scorer, so that it can change")
        self.service = service
        self.scorer = scorer
        self.columns = list(columns or ())
        self.texts = texts
        self.batch_size = batch_size
        self.image_size = image_size
        self.store: AnswerStore[float] | None = None
        if cache is not None:
            self.store = AnswerStore(Path(cache) / FILE, "confidence REAL", max_bytes)
        self.servers = Servers(
            service,
            timeout=TIMEOUT,
            probe=self._probe,
            probe_is=f"a picture of {image_size} x {image_size} pixels (image_size)",
            who="reward service",
        )

    @property
    def name(self) -> str:
        return f"{type(self).__name__} ({self.scorer or self.service.shown})"

    @property
    def longest_wait(self) -> float:
        return self.servers.longest_wait

    def stop_waiting(self) -> None:
        self.servers.stop_waiting()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if no prompt has a column that is to be sent, or its value cannot be sent."""
        known = {name for prompt in prompts for name in prompt.columns}
        for name in self.columns if prompts else ():
            if name not in known:
                raise ValueError(f"columns: {name!r} is no column of the prompts: {nearest(name, known)}")
        for prompt in prompts:
            try:
                json.dumps(self._columns_of(prompt))
            except TypeError as error:
                raise ValueError(f"{where(prompt)}columns: a value cannot be sent as JSON ({error})") from None

    def preflight(self) -> None:
        """Asks every server about a red picture.

        Raises ValueError, with the remedy, unless each gives a number or null; also if the cache cannot be used.
        """
        if self.store is not None:
            self.store.preflight()
        self.servers.preflight(_reader(1))

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Equal samples are asked about once.

        Raises:
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` requests failed.
        """
        keys = [self._key(t) for t in trajectories]
        distinct = dict(zip(keys, trajectories, strict=True))
        found: dict[bytes, float | None] = {} if self.store is None else dict(self.store.found(list(distinct)))
        open_keys = [key for key in distinct if key not in found]
        new = dict(zip(open_keys, self._asked([distinct[key] for key in open_keys]), strict=True))
        if self.store is not None:
            self.store.keep({key: value for key, value in new.items() if value is not None})
        scores = [(found | new)[key] for key in keys]
        return RewardOutput(
            reward_N=torch.tensor([math.nan if value is None else value for value in scores], dtype=torch.float32),
            metrics=self._metrics(scores),
        )

    # ----------------------------------------------------------------- helpers

    def _asked(self, trajectories: Sequence[Trajectory]) -> list[float | None]:
        """The service's number for each sample; None where it gives none."""
        batches = [
            trajectories[start : start + self.batch_size] for start in range(0, len(trajectories), self.batch_size)
        ]
        answers = answers_of(
            self.servers, list(map(self._body, batches)), [_reader(len(batch)) for batch in batches], "requests"
        )
        return [
            value
            for batch, answer in zip(batches, answers, strict=True)
            for value in (answer if answer is not None else [None] * len(batch))
        ]

    def _body(self, batch: Sequence[Trajectory]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompts": [t.prompt.text for t in batch],
            "images": [data_uri(t.image.pixels_HWC.numpy()) for t in batch],
        }
        if self.texts:
            body["texts"] = [t.reasoning for t in batch]
        if self.columns:
            body["columns"] = {name: [t.prompt.columns.get(name) for t in batch] for name in self.columns}
        return body

    def _columns_of(self, prompt: Prompt) -> list[Any]:
        return [prompt.columns.get(name) for name in self.columns]

    def _key(self, trajectory: Trajectory) -> bytes:
        """Equal for samples that the service cannot tell apart."""
        return digest(
            f"service:{self.scorer}".encode(),
            image_digest(trajectory.image.pixels_HWC.numpy()),
            trajectory.prompt.text.encode(),
            json.dumps([trajectory.reasoning if self.texts else None, self._columns_of(trajectory.prompt)]).encode(),
        )

    def _probe(self) -> Mapping[str, Any]:
        red = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        red[..., 0] = 255
        body: dict[str, Any] = {"prompts": ["a red picture"], "images": [data_uri(red)]}
        return (
            body
            | ({"texts": [""]} if self.texts else {})
            | ({"columns": {name: [None] for name in self.columns}} if self.columns else {})
        )

    def _metrics(self, scores: Sequence[float | None]) -> dict[str, Metric]:
        label = re.sub(r"\W+", "_", self.scorer).strip("_") or "service"
        found: dict[str, Metric] = {
            f"reward/{label}": Mean.over(scores),
            f"service/{label}/unscored": Mean.over(value is None for value in scores),
        }
        counts = {name: Sum(value=value) for name, value in self.servers.metrics().items()}
        kept = {} if self.store is None else self.store.metrics()
        return found | {
            f"service/{label}/{name.removeprefix('judge/')}": metric for name, metric in {**counts, **kept}.items()
        }


def _reader(number: int) -> Callable[[Any], list[float | None]]:
    """Reads the answer to a request about that many samples."""

    def read(answer: Any) -> list[float | None]:
        """Raises Failure unless there is a finite number, or null, for each sample."""
        scores = answer.get("scores") if isinstance(answer, Mapping) else None
        if not isinstance(scores, list):
            raise Failure("malformed", f'no list "scores": {str(answer)[:80]!r}')
        if len(scores) != number:
            raise Failure("malformed", f"{len(scores)} scores for {number} samples")
        for value in scores:
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not is_number:
                raise Failure("malformed", f"a score that is neither a finite number nor null: {str(value)[:40]!r}")
        return [None if value is None else float(value) for value in scores]

    return read
