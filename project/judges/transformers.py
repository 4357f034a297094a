"""A multimodal language model of the `transformers` library as the judge, in this process."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.judges.base import Judge
from project.judges.first_token import Asked, confidences, device_of, one_by_one, regrouped
from project.judges.templates import answer_ids, judge_messages, template_name
from project.models.hub import local_copy
from project.models.query import pad
from project.models.text import parted
from project.trajectory import Question

log = logging.getLogger(__name__)

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""What is fetched of a model on the hub."""
SAME = 0.1
"""Total variation distance of two answers that may still be called the same: rounding in bf16 and int8."""


class TransformersJudge(Judge):
    """Asks a local vision-language model: Qwen2.5-VL, Qwen3-VL, or another that answers about pictures in a chat.

    One forward for a batch of questions, no generation: the confidence is P(yes) / (P(yes) + P(no)) of the answer's
    first token, summed over every token of the vocabulary that says yes or no. A picture with several questions is
    read once: they share the keys and values of all that comes before they differ. It works without torchvision.

    The weights are read when the judge is first needed (in `preflight`, before training).

    Args:
        model: folder or hub id, e.g. Qwen/Qwen3-VL-8B-Instruct.
        quantization: 8bit (int8) or 4bit (nf4) linear layers by bitsandbytes, or none.
        dtype: of what is not quantized.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        batch_size: questions per forward.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        share_pictures: read a picture once for all of its questions. A model that answers differently then (it is
            tried when the model is loaded) is asked question by question all the same.
        show_request: see `OpenAIJudge`.

    Raises:
        ValueError: for a batch size below 1 or a minimum mass outside [0, 1].
    """

    def __init__(
        self,
        model: str,
        quantization: Literal["none", "8bit", "4bit"] = "none",
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
        device: str | None = None,
        batch_size: int = 16,
        minimum_mass: float = 0.01,
        share_pictures: bool = True,
        show_request: bool = False,
    ) -> None:
        if batch_size < 1 or not 0 <= minimum_mass <= 1:
            raise ValueError(f"{batch_size=}, {minimum_mass=}: give at least 1, and a probability")
        self.model = model
        self.quantization = quantization
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.minimum_mass = minimum_mass
        self.share_pictures = share_pictures
        self.show_request = show_request
        self._loaded: LocalModel | None = None

    @property
    def name(self) -> str:
        return (
            f"transformers:{self.model}:{self.quantization}:{self.dtype}"
            f":{template_name(self.show_request)}:mass-{self.minimum_mass:g}"
        )

    def preflight(self) -> None:
        """Loads the model and asks it about a grey picture.

        Raises:
            FileNotFoundError: if there is no such model.
            ValueError: if it cannot read pictures, has no chat template, no tokens for yes and no, or does not answer
                with one of them.
        """
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        if self.answer([grey], [[Question(text="Is this picture grey?")]], [""]) == [[None]]:
            raise ValueError(
                f"judge {self.model}: neither yes nor no is probable as the first word of its answer "
                f"(minimum_mass={self.minimum_mass:g}): every question would be unanswered; take a model that "
                "answers at once (instruct, not thinking)"
            )

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        asked = one_by_one(images, questions, prompts)
        answers: list[float | None] = []
        for batch in self._batches(asked) if asked else ():
            judge = self._ready()
            together = judge.share and len(batch) > 1 and batch[0].picture == batch[-1].picture
            chats = judge.chats([(one.question, one.prompt if self.show_request else "") for one in batch])
            if together:
                log_prob_RV = judge.about_one_picture(images[batch[0].picture], chats)
            else:
                log_prob_RV = judge.one_by_one([images[one.picture] for one in batch], chats)
            answers += confidences(log_prob_RV, judge.yes, judge.no, self.minimum_mass)
        return regrouped(answers, questions)

    def _batches(self, asked: Sequence[Asked]) -> list[list[Asked]]:
        """Questions that are asked together: those of one picture, or of several where most have only one."""
        pictures = len({one.picture for one in asked})
        if not self._ready().share or len(asked) < 2 * pictures:
            return _cut(asked, self.batch_size)
        return [
            batch for _, own in groupby(asked, lambda one: one.picture) for batch in _cut(list(own), self.batch_size)
        ]

    def _ready(self) -> LocalModel:
        if self._loaded is None:
            self._loaded = load(self.model, self.quantization, getattr(torch, self.dtype), self.device)
            if self.share_pictures:
                self._loaded = dataclasses.replace(self._loaded, share=shares_pictures(self._loaded))
        return self._loaded


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model ready to be asked, and the ids of its tokens that say yes and no.

    Its methods give log-probabilities [R, V] (fp64) of the first token that answers each of R chats.
    """

    model: Any
    processor: Any
    yes: Sequence[int]
    no: Sequence[int]
    share: bool = False
    """Whether several questions may read a picture together."""

    def chats(self, asked: Sequence[tuple[str, str]]) -> list[str]:
        """The chat of each (question, request), up to where the answer begins."""
        tokenizer = self.processor.tokenizer
        messages = [
            judge_messages(parted(tokenizer, question), {"type": "image"}, parted(tokenizer, request))
            for question, request in asked
        ]
        chats: list[str] = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return chats

    @torch.inference_mode()
    def one_by_one(self, images: Sequence[np.ndarray], chats: Sequence[str]) -> Tensor:
        """A picture for each chat."""
        inputs = self._inputs(images, chats)
        logits_RV = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        return torch.log_softmax(logits_RV.double(), dim=-1)

    @torch.inference_mode()
    def about_one_picture(self, image: np.ndarray, chats: Sequence[str]) -> Tensor:
        """One picture for all chats: what they have in common is read once, then each reads its own end."""
        inputs = self._inputs([image], chats[:1])
        ids = [self.processor.tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats]
        common = min(_common(ids), min(map(len, ids)) - 1)
        # Read from the end: the picture's place, which all have in common, is a single token in `ids`.
        length = inputs["input_ids"].shape[1] - len(ids[0]) + common
        shape = inputs["input_ids"].shape
        start = {name: value[:, :length] if value.shape == shape else value for name, value in inputs.items()}
        cache = self.model(**start, logits_to_keep=1, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(chats))
        ends_RT, _ = pad([torch.tensor(row[common:], device=self.model.device) for row in ids])
        last_R = torch.tensor([len(row) - common - 1 for row in ids], device=self.model.device)
        # Padding stands behind: nothing that counts sees it, so there is no mask.
        kept, place_R = last_R.unique(return_inverse=True)
        output = self.model(input_ids=ends_RT, past_key_values=cache, logits_to_keep=kept, use_cache=True)
        rows = torch.arange(len(chats), device=self.model.device)
        return torch.log_softmax(output.logits[rows, place_R].double(), dim=-1)

    def _inputs(self, images: Sequence[np.ndarray], chats: Sequence[str]) -> Any:
        return self.processor(
            images=[[Image.fromarray(image)] for image in images], text=list(chats), padding=True, return_tensors="pt"
        ).to(self.model.device, self.model.dtype)


def shares_pictures(judge: LocalModel) -> bool:
    """Whether the model says the same when several questions read a picture together. Tells in the log if not."""
    shade = np.linspace(0, 255, 64 * 96 * 3).astype(np.uint8).reshape(64, 96, 3)
    chats = judge.chats(
        [(text, "a grey wall") for text in ("Is it grey?", "Is it red?", "Is there a small dog on it?")]
    )
    try:
        together = judge.about_one_picture(shade, chats).exp()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        log.info("judge: questions about one picture are asked one by one (%s: %s)", type(error).__name__, error)
        return False
    distance = (together - judge.one_by_one([shade] * len(chats), chats).exp()).abs().sum(-1).max().item() / 2
    if distance > SAME:
        log.info("judge: questions about one picture are asked one by one (else the answers differ by %.2f)", distance)
    return distance <= SAME


def load(model: str, quantization: str, dtype: torch.dtype, device: str | None) -> LocalModel:
    """The model (frozen), its processor and its words for yes and no. Raises as `TransformersJudge.preflight`."""
    folder = local_copy(model, FILES, "judge")
    processor = picture_processor(folder)
    try:
        yes, no = answer_ids(processor.tokenizer.get_vocab())
    except ValueError as error:
        raise ValueError(f"judge {model}: {error}") from None
    return LocalModel(model=load_weights(folder, quantization, dtype, device), processor=processor, yes=yes, no=no)


def load_weights(folder: Path, quantization: str, dtype: torch.dtype, device: str | None) -> Any:
    """The model of a folder, frozen."""
    from transformers import AutoModelForImageTextToText

    # Otherwise it says at every layer of every forward that int8 products take float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    # Loading must not move the run's randomness.
    with torch.random.fork_rng():
        loaded = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=_quantization(quantization, dtype),
            device_map={"": device_of(device)},
        )
    return loaded.eval().requires_grad_(False)


def picture_processor(folder: Path, what: str = "judge") -> Any:
    """The processor of a vision-language model, for chats about pictures; texts are padded on the left.

    `AutoProcessor` would also make the processor's part for videos, which needs torchvision; here it is left out.

    `what` it is called in messages. Raises ValueError if the model is not one that chats about pictures.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        kind = type(AutoConfig.from_pretrained(folder))
    except (ValueError, OSError) as error:
        raise ValueError(f"{what} {folder}: no model that transformers knows ({error}): give another") from None
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or kind not in PROCESSOR_MAPPING:
        raise ValueError(
            f"{what} {folder}: a {kind.model_type} model does not answer about pictures: take a vision-language model "
            "such as Qwen/Qwen3-VL-8B-Instruct"
        )
    processor_class: Any = PROCESSOR_MAPPING[kind]

    class WithoutVideos(processor_class):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [attribute for attribute in super().get_attributes() if attribute != "video_processor"]

    processor = WithoutVideos.from_pretrained(folder)
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise ValueError(f"{what} {folder}: has no chat template: take the model tuned for instructions")
    processor.tokenizer.padding_side = "left"
    return processor


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    configurations = {
        "none": lambda: None,
        "8bit": lambda: BitsAndBytesConfig(load_in_8bit=True),
        "4bit": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
    }
    return configurations[kind]()


def _cut(asked: Sequence[Asked], size: int) -> list[list[Asked]]:
    return [list(asked[start : start + size]) for start in range(0, len(asked), size)]


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows have in common at their beginning."""
    for place, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, rows))
