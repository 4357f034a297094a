"""The prompt's likelihood by a multimodal language model of the `transformers` library, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from project.judges.transformers import FILES, load_weights, picture_processor
from project.models.hub import local_copy
from project.models.query import pad
from project.models.text import parted
from project.rewards.likelihood import Baseline, LikelihoodReward


class MLLMLikelihood(LikelihoodReward):
    """A local vision-language model (Qwen2.5-VL, Qwen3-VL or similar) is asked about the picture in a chat; how
    probable is the prompt as its answer?

    One forward for a batch, no generation. It works without torchvision. The weights are read when they are first
    needed (in `preflight`, before training).

    Args:
        model: folder or hub id, e.g. Qwen/Qwen3-VL-8B-Instruct.
        instruction: what the chat asks for.
        baseline: `no_picture` subtracts the value without the picture, see `LikelihoodReward`.
        quantization: 8bit (int8) or 4bit (nf4) linear layers by bitsandbytes, or none.
        dtype: number format of the layers that are not quantized.
        device: e.g. cuda:1; None = the accelerator if there is one, else the CPU.
        batch_size: prompts per forward.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: for an empty instruction, which leaves nothing to answer, and as `LikelihoodReward`.
    """

    def __init__(
        self,
        model: str,
        instruction: str = "Describe this picture.",
        baseline: Baseline = "none",
        quantization: Literal["none", "8bit", "4bit"] = "none",
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
        device: str | None = None,
        batch_size: int = 16,
        weight: float = 1.0,
    ) -> None:
        super().__init__(instruction, baseline, batch_size, weight)
        if not instruction.strip():
            raise ValueError("instruction is empty: say what the answer is to be, such as 'Describe this picture.'")
        self.model = model
        self.quantization = quantization
        self.dtype = dtype
        self.device = device
        self._loaded: _Loaded | None = None

    def preflight(self) -> None:
        """Loads the model and shows it a grey picture.

        Raises:
            FileNotFoundError: if there is no such model.
            ValueError: if it cannot read pictures or has no chat template.
        """
        self._in_batches(["a grey picture"], [np.full((64, 64, 3), 128, dtype=np.uint8)])

    @torch.inference_mode()
    def mean_log_probs(self, prompts: Sequence[str], images: Sequence[np.ndarray] | None) -> list[float]:
        loaded = self._ready()
        tokenizer = loaded.processor.tokenizer
        # An answer follows the chat: its tokens are those of the text alone, whatever stands before.
        ids = [
            tokenizer(parted(tokenizer, text), add_special_tokens=False, return_tensors="pt")["input_ids"][0]
            for text in prompts
        ]
        chats, device = self._chats(len(prompts), images), loaded.model.device
        answer_RT, written_RT = (x.to(device) for x in pad(ids))
        shape = chats["input_ids"].shape
        # Padding of the answers stands behind: nothing that counts sees it.
        ends = {"input_ids": answer_RT, "attention_mask": written_RT.long()}
        nothing = torch.zeros_like(answer_RT)
        inputs = {
            name: torch.cat([value, ends.get(name, nothing).to(value.dtype)], dim=1) if value.shape == shape else value
            for name, value in chats.items()
        }
        length = answer_RT.shape[1]
        logits_RTV = loaded.model(**inputs, logits_to_keep=length + 1, use_cache=False).logits[:, :-1]
        log_prob_RTV = torch.log_softmax(logits_RTV.float(), dim=-1)
        chosen_RT = log_prob_RTV.gather(2, answer_RT[..., None])[..., 0].where(written_RT, 0.0)
        values: list[float] = (chosen_RT.double().sum(1) / written_RT.sum(1)).tolist()
        return values

    def _chats(self, number: int, images: Sequence[np.ndarray] | None) -> dict[str, torch.Tensor]:
        """Chats up to where the answer begins, padded on the left."""
        loaded = self._ready()
        words = [{"type": "text", "text": self.instruction}]
        content = words if images is None else [{"type": "image"}, *words]
        chat = loaded.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        pictures = {} if images is None else {"images": [[Image.fromarray(image)] for image in images]}
        made: Any = loaded.processor(text=[chat] * number, padding=True, return_tensors="pt", **pictures)
        return dict(made.to(loaded.model.device, loaded.model.dtype))

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            folder = local_copy(self.model, FILES, "model")
            processor = picture_processor(folder, "model")
            weights = load_weights(folder, self.quantization, getattr(torch, self.dtype), self.device)
            self._loaded = _Loaded(model=weights, processor=processor)
        return self._loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    model: Any
    processor: Any
