"""A unified model as the judge: it draws, and it can also say what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image

from project.judges.base import Judge
from project.judges.first_token import Asked, confidences, device_of, one_by_one, regrouped
from project.judges.templates import answer_ids, judge_text, template_name
from project.models.base import ModelSource, UnifiedModel
from project.models.reading import Reading, read
from project.trajectory import Question


class UnifiedJudge(Judge):
    """Asks a frozen copy of a unified model, by itself or as it was before it was trained.

    It reads the picture through its vision encoder, then the question; the confidence is P(yes) / (P(yes) + P(no)) of
    the first token that it would answer. A picture is read once for all of its questions in a batch.

    The weights are read when the judge is first needed (in `preflight`, before training).

    Args:
        policy: the model, e.g. project.models.bagel.BagelCheckpoint.
        template: plain = the bare question, for models that were trained on it (the embedded one); judge = with the
            instructions that language models as judges are given (`project.judges.templates`).
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        batch_size: questions per forward.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        show_request: with the template `judge`, also tell the model what the picture was made for, see `OpenAIJudge`.

    Raises:
        ValueError: for a batch size below 1, a minimum mass outside [0, 1], or `show_request` with the plain template.
    """

    def __init__(
        self,
        policy: ModelSource,
        template: Literal["plain", "judge"] = "judge",
        device: str | None = None,
        batch_size: int = 32,
        minimum_mass: float = 0.01,
        show_request: bool = False,
    ) -> None:
        if batch_size < 1 or not 0 <= minimum_mass <= 1:
            raise ValueError(f"{batch_size=}, {minimum_mass=}: give at least 1, and a probability")
        if show_request and template == "plain":
            raise ValueError("show_request=True: the plain template is the bare question, set template to judge")
        self.policy = policy
        self.template = template
        self.device = device
        self.batch_size = batch_size
        self.minimum_mass = minimum_mass
        self.show_request = show_request
        self._model: UnifiedModel | None = None
        self._ids: tuple[list[int], list[int]] = ([], [])

    @property
    def name(self) -> str:
        arguments = ",".join(f"{name}={value!r}" for name, value in sorted(vars(self.policy).items()))
        template = template_name(self.show_request) if self.template == "judge" else "plain"
        return f"unified:{type(self.policy).__name__}({arguments}):{template}:mass-{self.minimum_mass:g}"

    def preflight(self) -> None:
        """Loads the model and asks it about a grey picture.

        Raises FileNotFoundError or ValueError as the source does, and ValueError if the model has no tokens for yes
        and no, cannot see, or does not answer with one of them.
        """
        sides = self._loaded().defaults
        grey = np.full((sides.height, sides.width, 3), 128, dtype=np.uint8)
        if self.answer([grey], [[Question(text="is the background plain ?")]], [""]) == [[None]]:
            raise ValueError(
                f"judge {self.name}: neither yes nor no is probable as the first word of its answer: every question "
                "would be unanswered; try another template or a lower minimum_mass"
            )

    @torch.inference_mode()
    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        asked = one_by_one(images, questions, prompts)
        model = self._loaded()
        vae, _ = model.picture_transforms
        answers: list[float | None] = []
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            seen = {
                n: torch.from_numpy(np.array(vae.resize(Image.fromarray(images[n]))))
                for n in {one.picture for one in batch}
            }
            known = read(
                model,
                [Reading(text=self._text(one), picture=seen[one.picture]) for one in batch],
                lambda room: model.static_context(1, room),
                latents=False,
            )
            main = known.main.select(known.row_N, room=1)
            answers += confidences(model.first_token_log_probs(main), *self._ids, self.minimum_mass)
        return regrouped(answers, questions)

    def _text(self, asked: Asked) -> str:
        if self.template == "plain":
            return asked.question
        return judge_text(asked.question, asked.prompt if self.show_request else "")

    def _loaded(self) -> UnifiedModel:
        if self._model is None:
            device = device_of(self.device)
            with torch.device(device):
                model = self.policy.load().requires_grad_(False).eval()
            try:
                self._ids = answer_ids(model.tokenizer.get_vocab())
            except ValueError as error:
                raise ValueError(f"judge {self.name}: {error}") from None
            self._model = model.to(device)
        return self._model
