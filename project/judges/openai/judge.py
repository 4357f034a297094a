"""`OpenAIJudge`: a vision-language model behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp) answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from project.core.digest import image_digest
from project.judges.base import Judge
from project.judges.first_token import one_by_one, regrouped
from project.judges.openai.yes_no_model import Chat, YesNoModel
from project.judges.templates import TEMPLATE_VERSION, judge_messages
from project.trajectory import Question


class OpenAIJudge(Judge):
    """Asks a model over HTTP, several questions at a time.

    What stays without an answer after all retries is unanswered (None), never 0. While no server answers at all,
    `answer` waits up to `patience` seconds and then raises `JudgeUnavailable`, which ends a training saved.

    Args:
        base_url: address of a server, up to and including /v1, or several addresses of equal servers.
        model: name that the server knows the model by.
        api_key: key of the server. It is written to the run's config.yaml: prefer `api_key_env`.
        api_key_env: name of the environment variable that holds the key.
        concurrency: questions at work at one server, for each rank of a training.
        timeout: longest wait for one answer [s].
        retries: further attempts at a question after a failure.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two attempts to reach a server that is away [s].
        patience: longest wait while every server is away [s].
        text_fallback: where the log-probabilities lack both yes and no, take yes or no of the text as 1 or 0; counted.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        top_logprobs: first tokens whose log-probabilities are asked for; OpenAI and vLLM allow 20.
        image_size: height and width of the picture that `preflight` asks about [pixels]: that of your pictures.
        extra_body: further fields of the request, e.g. {chat_template_kwargs: {enable_thinking: false}}.

    Raises:
        ValueError: for an address that is none, a missing key, or numbers out of range.
    """

    def __init__(
        self,
        base_url: str | list[str],
        model: str,
        api_key: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        retries: int = 4,
        breaker_failures: int = 8,
        probe_seconds: float = 5.0,
        patience: float = 1800.0,
        text_fallback: bool = False,
        minimum_mass: float = 0.01,
        top_logprobs: int = 20,
        image_size: int = 512,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: give 1 or more")
        self.image_size = image_size
        self.asked = YesNoModel(
            self._probe,
            f"a question about a picture of {image_size} x {image_size} pixels (image_size)",
            base_url=base_url,
            model=model,
            api_key=api_key,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            breaker_failures=breaker_failures,
            probe_seconds=probe_seconds,
            patience=patience,
            text_fallback=text_fallback,
            minimum_mass=minimum_mass,
            top_logprobs=top_logprobs,
            extra_body=extra_body,
        )

    @property
    def name(self) -> str:
        return self.asked.name(f"template-{TEMPLATE_VERSION}")

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
        keys = [(pictures[row.picture], row.question, row.prompt) for row in rows]
        distinct = list(dict.fromkeys(keys))
        answers = self.asked.confidences(
            [_chat(uris[picture], question, prompt) for picture, question, prompt in distinct]
        )
        found = dict(zip(distinct, answers, strict=True))
        return regrouped([found[key] for key in keys], questions)

    def preflight(self) -> None:
        """One question about a picture of `image_size` to every server. Raises ValueError with the remedy."""
        self.asked.preflight()

    def stop_waiting(self) -> None:
        self.asked.stop_waiting()

    def metrics(self) -> dict[str, float]:
        return self.asked.metrics()

    def _probe(self) -> Chat:
        picture = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        picture[..., 0] = 255
        return _chat(data_uri(picture), "Is the whole picture red?", "a red square")


def data_uri(image: np.ndarray) -> str:
    """PNG of a uint8 [height, width, 3] picture, for an image_url. Raises ValueError for anything else."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image of {image.dtype} {image.shape}: give uint8 [height, width, 3]")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _chat(uri: str, question: str, prompt: str) -> Chat:
    return judge_messages(prompt, question, {"type": "image_url", "image_url": {"url": uri}})
