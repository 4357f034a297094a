"""A multimodal language model of the `transformers` library as the judge, in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from project.judges.base import Judge
from project.judges.first_token import Asked, confidences, device_of, one_by_one, regrouped
from project.judges.templates import TEMPLATE_VERSION, answer_ids, judge_messages
from project.models.hub import local_copy
from project.trajectory import Question

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""What is fetched of a model on the hub."""


class TransformersJudge(Judge):
    """Asks a local vision-language model: Qwen2.5-VL, Qwen3-VL, or another that answers about pictures in a chat.

    One forward for a batch of questions, no generation: the confidence is P(yes) / (P(yes) + P(no)) of the answer's
    first token, summed over every token of the vocabulary that says yes or no. It works without torchvision.

    The weights are read when the judge is first needed (in `preflight`, before training).

    Args:
        model: folder or hub id, e.g. Qwen/Qwen3-VL-8B-Instruct.
        quantization: 8bit (int8) or 4bit (nf4) linear layers by bitsandbytes, or none.
        dtype: of what is not quantized.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        batch_size: questions per forward.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.

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
    ) -> None:
        if batch_size < 1 or not 0 <= minimum_mass <= 1:
            raise ValueError(f"{batch_size=}, {minimum_mass=}: give at least 1, and a probability")
        self.model = model
        self.quantization = quantization
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.minimum_mass = minimum_mass
        self._loaded: _Loaded | None = None

    @property
    def name(self) -> str:
        return (
            f"transformers:{self.model}:{self.quantization}:{self.dtype}"
            f":template-{TEMPLATE_VERSION}:mass-{self.minimum_mass:g}"
        )

    def preflight(self) -> None:
        """Loads the model and asks it about a grey picture.

        Raises:
            FileNotFoundError: if there is no such model.
            ValueError: if it cannot read pictures, has no chat template, or no tokens for yes and no.
        """
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        self.answer([grey], [[Question(text="Is this picture grey?")]], [""])

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        asked = one_by_one(images, questions, prompts)
        answers: list[float | None] = []
        for start in range(0, len(asked), self.batch_size):
            answers += self._confidences(images, asked[start : start + self.batch_size])
        return regrouped(answers, questions)

    @torch.inference_mode()
    def _confidences(self, images: Sequence[np.ndarray], asked: Sequence[Asked]) -> list[float | None]:
        if self._loaded is None:
            self._loaded = load(self.model, self.quantization, getattr(torch, self.dtype), self.device)
        judge = self._loaded
        chats = [judge_messages(one.prompt, one.question, {"type": "image"}) for one in asked]
        inputs = judge.processor(
            images=[[Image.fromarray(images[one.picture])] for one in asked],
            text=judge.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True),
            padding=True,
            return_tensors="pt",
        ).to(judge.model.device, judge.model.dtype)
        logits_RV = judge.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        log_prob_RV = torch.log_softmax(logits_RV.double(), dim=-1)
        return confidences(log_prob_RV, judge.yes, judge.no, self.minimum_mass)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A model ready to be asked, and the ids of its tokens that say yes and no."""

    model: Any
    processor: Any
    yes: Sequence[int]
    no: Sequence[int]


def load(model: str, quantization: str, dtype: torch.dtype, device: str | None) -> _Loaded:
    """The model (frozen), its processor and its words for yes and no. Raises as `TransformersJudge.preflight`."""
    from transformers import AutoModelForImageTextToText

    folder = local_copy(model, FILES, "judge")
    processor = picture_processor(folder)
    try:
        yes, no = answer_ids(processor.tokenizer.get_vocab())
    except ValueError as error:
        raise ValueError(f"judge {model}: {error}") from None
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
    return _Loaded(model=loaded.eval().requires_grad_(False), processor=processor, yes=yes, no=no)


def picture_processor(folder: Path) -> Any:
    """The processor of a vision-language model, for chats about pictures; texts are padded on the left.

    `AutoProcessor` would also make the processor's part for videos, which needs torchvision; here it is left out.

    Raises ValueError if the model is not one that chats about pictures.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        kind = type(AutoConfig.from_pretrained(folder))
    except (ValueError, OSError) as error:
        raise ValueError(f"judge {folder}: no model that transformers knows ({error}): give another") from None
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or kind not in PROCESSOR_MAPPING:
        raise ValueError(
            f"judge {folder}: a {kind.model_type} model does not answer about pictures: take a vision-language model "
            "such as Qwen/Qwen3-VL-8B-Instruct"
        )
    processor_class: Any = PROCESSOR_MAPPING[kind]

    class WithoutVideos(processor_class):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [attribute for attribute in super().get_attributes() if attribute != "video_processor"]

    processor = WithoutVideos.from_pretrained(folder)
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise ValueError(f"judge {folder}: has no chat template: take the model tuned for instructions")
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
