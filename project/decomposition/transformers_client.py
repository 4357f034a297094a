"""A language model of the `transformers` library, in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from project.decomposition.base import ChatModel, Reply
from project.models.hub import local_copy
from project.models.text import parted

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""What is fetched of a model on the hub."""


class TransformersChat(ChatModel):
    """Generates one reply at a time; the weights are read when it is first asked.

    Args:
        model: folder or hub id, e.g. Qwen/Qwen3-8B.
        dtype: of the weights.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        max_tokens: longest reply, its reasoning included.
        temperature: of attempts after the first, which is greedy.

    Raises:
        ValueError: if max_tokens is below 1 or the temperature not above 0.
    """

    def __init__(
        self,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
        device: str | None = None,
        max_tokens: int = 4096,
        temperature: float = 0.7,
    ) -> None:
        if max_tokens < 1 or temperature <= 0:
            raise ValueError(f"{max_tokens=}, {temperature=}: give at least 1, and a temperature above 0")
        self.model = model
        self.dtype = dtype
        self.device = device
        self.max_tokens = max_tokens
        self.temperature = temperature
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"transformers:{self.model}:{self.dtype}"

    def preflight(self) -> None:
        """Loads the model. Raises FileNotFoundError if there is none, ValueError if it does not chat."""
        with self._lock:
            self._load()

    @torch.inference_mode()
    def chat(self, messages: Sequence[Mapping[str, str]], attempt: int = 0) -> Reply:
        with self._lock, torch.random.fork_rng():
            model, tokenizer = self._load()
            inputs = tokenizer.apply_chat_template(
                [{**message, "content": parted(tokenizer, message["content"])} for message in messages],
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
            torch.manual_seed(attempt)
            drawing = {"do_sample": True, "temperature": self.temperature} if attempt else {"do_sample": False}
            ids_RT = model.generate(**inputs, max_new_tokens=self.max_tokens, **drawing)
        reply_T = ids_RT[0, inputs["input_ids"].shape[1] :]
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return Reply(
            text=str(tokenizer.decode(reply_T, skip_special_tokens=True)),
            cut_off=len(reply_T) == self.max_tokens and int(reply_T[-1]) not in ends,
        )

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = _loaded(self.model, getattr(torch, self.dtype), self.device)
        return self._loaded


def _loaded(directory: str, dtype: torch.dtype, device: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = local_copy(directory, FILES, "language model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": place})
    except (ValueError, OSError) as error:
        raise ValueError(f"{directory} is no language model that transformers can read ({error})") from error
    if not tokenizer.chat_template:
        raise ValueError(f"{directory} has no chat template: take the model tuned for instructions")
    return model.eval(), tokenizer
