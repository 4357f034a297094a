"""A multimodal language model of the `transformers` library writes answers, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from project.core.reasoning import split_reasoning
from project.judges.base import check_image
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest
from project.judges.templates import FREE_TEXT_TEMPLATE_VERSION, free_text_messages
from project.judges.transformers import FILES, load_weights, picture_processor
from project.models.hub import local_copy
from project.models.text import parted


class TransformersFreeTextJudge(FreeTextJudge):
    """Asks a local vision-language model, as `TransformersJudge` does; it writes whole answers.

    Requests with equally many pictures are answered together. Those of further attempts are answered one by one, so
    that their draws do not depend on each other. Defaults of the model for sampling (repetition penalty, top-k) are not
    used.

    Args:
        model: folder or hub id, e.g. Qwen/Qwen3-VL-8B-Instruct.
        quantization: 8bit (int8) or 4bit (nf4) linear layers by bitsandbytes, or none.
        dtype: of what is not quantized.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        batch_size: requests per batch.
        max_tokens: longest answer, reasoning included.
        retry_temperature: see `OpenAIFreeTextJudge`.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        model: str,
        quantization: Literal["none", "8bit", "4bit"] = "none",
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
        device: str | None = None,
        batch_size: int = 8,
        max_tokens: int = 1024,
        retry_temperature: float = 0.3,
    ) -> None:
        if batch_size < 1 or max_tokens < 1 or not retry_temperature > 0:
            raise ValueError(f"{batch_size=}, {max_tokens=}, {retry_temperature=}: give numbers above 0")
        self.model = model
        self.quantization = quantization
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.retry_temperature = retry_temperature
        self._loaded: _Writer | None = None

    @property
    def name(self) -> str:
        return (
            f"transformers:{self.model}:{self.quantization}:{self.dtype}:free-text-{FREE_TEXT_TEMPLATE_VERSION}"
            f":{self.max_tokens}-tokens:retry-{self.retry_temperature:g}"
        )

    def preflight(self) -> None:
        """Loads the model and lets it write about a grey picture.

        Raises:
            FileNotFoundError: if there is no such model.
            ValueError: if it cannot read pictures, has no chat template, or does not end its answer.
        """
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        (answer,) = self.write([FreeTextRequest(text="Write the word yes and nothing else.", pictures=(grey,))])
        if answer is None or answer.cut_off:
            raise ValueError(
                f"judge {self.model} comes to no end within {self.max_tokens} tokens: raise max_tokens, or take a "
                "model that answers at once (instruct, not thinking)"
            )

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        """See `FreeTextJudge.write`. Raises ValueError if a picture is no uint8 [height, width, 3]."""
        for request in requests:
            for picture in request.pictures:
                check_image(picture)
        answers: dict[int, FreeText] = {}
        for places in self._batches(requests):
            batch = [requests[place] for place in places]
            temperature = self.retry_temperature if batch[0].attempt else None
            written = self._ready().written(batch, self.max_tokens, temperature)
            answers |= dict(zip(places, written, strict=True))
        return [answers[place] for place in range(len(requests))]

    def _batches(self, requests: Sequence[FreeTextRequest]) -> Iterator[list[int]]:
        """Places of the requests that are answered together."""
        groups: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            if request.attempt:
                yield [place]
            else:
                groups.setdefault(len(request.pictures), []).append(place)
        for places in groups.values():
            for start in range(0, len(places), self.batch_size):
                yield places[start : start + self.batch_size]

    def _ready(self) -> _Writer:
        if self._loaded is None:
            folder = local_copy(self.model, FILES, "judge")
            processor = picture_processor(folder)
            weights = load_weights(folder, self.quantization, getattr(torch, self.dtype), self.device)
            self._loaded = _Writer(model=weights, processor=processor)
        return self._loaded


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """A model ready to write."""

    model: Any
    processor: Any

    @torch.inference_mode()
    def written(
        self, requests: Sequence[FreeTextRequest], max_tokens: int, temperature: float | None
    ) -> list[FreeText]:
        """Answers to requests with equally many pictures; greedy without a temperature, else with the first request's
        attempt as seed."""
        inputs = self._inputs(requests)
        drawn = {} if temperature is None else {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        # Drawing answers must not move the run's randomness.
        with torch.random.fork_rng():
            torch.manual_seed(requests[0].attempt)
            ids_RT = self.model.generate(
                **inputs, max_new_tokens=max_tokens, do_sample=bool(drawn), repetition_penalty=1.0, **drawn
            )
        return [self._answer(row) for row in ids_RT[:, inputs["input_ids"].shape[1] :].tolist()]

    def _inputs(self, requests: Sequence[FreeTextRequest]) -> Any:
        tokenizer = self.processor.tokenizer
        messages = [
            free_text_messages(parted(tokenizer, request.text), [{"type": "image"}] * len(request.pictures))
            for request in requests
        ]
        chats = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pictures = [[Image.fromarray(picture) for picture in request.pictures] for request in requests]
        return self.processor(
            images=pictures if pictures[0] else None, text=list(chats), padding=True, return_tensors="pt"
        ).to(self.model.device, self.model.dtype)

    def _answer(self, ids: Sequence[int]) -> FreeText:
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        said = self.processor.tokenizer.decode(ids if end is None else ids[: end + 1], skip_special_tokens=True)
        answer = split_reasoning(said)
        return FreeText(text=(answer or "").strip(), cut_off=end is None or answer is None)
