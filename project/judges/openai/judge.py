"""`OpenAIJudge`: a vision-language model behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp) answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.core.digest import image_digest
from project.judges.base import BehindJudge, Judge
from project.judges.first_token import one_by_one, regrouped
from project.judges.openai.pictures import data_uri
from project.judges.openai.server import Server
from project.judges.openai.yes_no_model import Chat, YesNoModel
from project.judges.templates import judge_messages, template_name
from project.trajectory import Question


class OpenAIJudge(BehindJudge, Judge):
    """Asks a model over HTTP, several questions at a time.

    What stays without an answer after all retries is unanswered (None), never 0. While no server answers at all,
    `answer` waits up to `patience` seconds and then raises `JudgeUnavailable`, which ends a training saved.

    Args:
        server: who is asked.
        text_fallback: where the log-probabilities lack both yes and no, take yes or no of the text as 1 or 0; counted.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        top_logprobs: first tokens whose log-probabilities are asked for; OpenAI and vLLM allow 20.
        image_size: height and width of the picture that `preflight` asks about [pixels]: that of your pictures.
        show_request: also tell the model what the picture was made for. As published, it is not told: a judge that
            knows the request tends to see what the request names.

    Raises:
        ValueError: for a missing key, or numbers out of range.
    """

    def __init__(
        self,
        server: Server,
        text_fallback: bool = False,
        minimum_mass: float = 0.01,
        top_logprobs: int = 20,
        image_size: int = 512,
        show_request: bool = False,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: give 1 or more")
        self.show_request = show_request
        self.image_size = image_size
        self.asked = YesNoModel(
            server,
            self._probe,
            f"a question about a picture of {image_size} x {image_size} pixels (image_size)",
            text_fallback=text_fallback,
            minimum_mass=minimum_mass,
            top_logprobs=top_logprobs,
        )

    @property
    def behind(self) -> YesNoModel:
        return self.asked

    @property
    def name(self) -> str:
        return self.asked.name(template_name(self.show_request))

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        """See `Judge.answer`. Equal questions about equal pictures are asked once.

        Raises:
            ValueError: if the three have different lengths, or an image is no uint8 [height, width, 3].
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` questions failed.
        """
        rows = one_by_one(images, questions, prompts)
        pictures = [image_digest(image) for image in images]
        uris = {digest: data_uri(image) for digest, image in dict(zip(pictures, images, strict=True)).items()}
        keys = [(pictures[row.picture], row.question, row.prompt if self.show_request else "") for row in rows]
        distinct = list(dict.fromkeys(keys))
        answers = self.asked.confidences(
            [_chat(uris[picture], question, request) for picture, question, request in distinct]
        )
        found = dict(zip(distinct, answers, strict=True))
        return regrouped([found[key] for key in keys], questions)

    def _probe(self) -> Chat:
        picture = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        picture[..., 0] = 255
        return _chat(data_uri(picture), "Is the whole picture red?", "a red square" if self.show_request else "")


def _chat(uri: str, question: str, request: str) -> Chat:
    return judge_messages(question, {"type": "image_url", "image_url": {"url": uri}}, request)
