"""The unified model as tasks, inference and judges call it: it reads text, pictures and latents, and writes them.

How a backbone does so is its own affair. Most are transformers with a cache of keys and values: see
`project/models/cached_transformer.py`. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from project.models.alike import AlikeStates
from project.models.context import Context, Contexts
from project.models.sizes import Sizes
from project.models.text import SampledText, TextLogProbs, plain_ids
from project.models.transforms import PictureTransform
from project.samplers.guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How a checkpoint is meant to be used when nothing else is said; a backbone may add settings of its own.

    Attributes:
        think_prompt: system prompt that announces reasoning before drawing.
        ask_think_prompt: system prompt that announces reasoning before an answer.
        reflect_prompt: what is said beside a picture that is to be looked at and redrawn; holds "{prompt}".
        height, width: of pictures, in pixels.
        num_steps, shift: of the ODE schedule (num_steps - 1 evaluations).
        guidance, guidance_interval: text guidance.
        max_tokens, temperature, top_p: of the reasoning; temperature 0 is greedy.
    """

    think_prompt: str = ""
    ask_think_prompt: str = ""
    reflect_prompt: str = (
        "This picture was drawn for the request: {prompt}\nSay first what the request asks for, then compare the "
        "picture with it point by point, then say what has to change, or that nothing is wrong. Then draw the "
        "picture again, corrected."
    )
    height: int = 1024
    width: int = 1024
    num_steps: int = 50
    shift: float = 3.0
    guidance: float = 4.0
    guidance_interval: tuple[float, float] = (0.4, 1.0)
    max_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 0.3


class ModelSource(ABC):
    """Where a model comes from: a light value named in YAML; weights are read when training is set up."""

    @abstractmethod
    def load(self) -> UnifiedModel:
        """Make the model. Raises FileNotFoundError or ValueError naming what is wrong with the files."""

    def load_as(self, dtype: torch.dtype | None) -> UnifiedModel:
        """The model for use without training, its weights in `dtype`; None: in the type that its files have.

        This one loads the model as `load` does and then changes its weights one by one. A source that can read them in
        a type overrides it, so that no wider copy is ever made. Raises as `load`.
        """
        model = self.load()
        for parameter in model.parameters():
            if dtype is not None and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        return model

    def outline(self) -> UnifiedModel:
        """The model on the meta device, without reading weights. Raises ValueError for a source that has none."""
        raise ValueError(f"{type(self).__name__} cannot outline its model, so there is no plan of its memory")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a checkpoint folder (perhaps without its weights) is one that `cls(directory)` reads."""
        return False


class UnifiedModel(nn.Module, ABC):
    """A model that reads text and pictures and writes text and latents.

    What it has read is a context (see `project.models.context`). Reading and writing make contexts grow.
    """

    tokenizer: Any
    defaults: Defaults
    name_or_path: str | None = None
    """Hub id or folder that the weights came from, if any (an adapter's files name it as their base)."""

    # ----------------------------------------------------------------- files

    @classmethod
    @abstractmethod
    def from_pretrained(cls, directory: str) -> UnifiedModel:
        """Load a checkpoint folder (or hub id). Raises FileNotFoundError, or ValueError naming file and tensor."""

    @abstractmethod
    def save_pretrained(
        self, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
    ) -> None:
        """Write a checkpoint folder that `from_pretrained` reads.

        Args:
            dtype: of the weights in the files; their own if None.
            max_shard_size: bytes in a weight file, for backbones that can write several; no limit if None.
        """

    # ----------------------------------------------------------------- what it is

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Parts that weights can be shared out by (FSDP2): each is used by one call, within the forward."""
        return ()

    @property
    def sizes(self) -> Sizes:
        """The widths that time and memory are planned with. Raises ValueError for a backbone that tells none."""
        raise ValueError(f"{type(self).__name__} tells no sizes, so there is no plan of its memory")

    @property
    def adapter_target(self) -> str:
        """Pattern of the whole names of the linear layers that adapters go on if nothing else is said.

        Raises ValueError for a backbone that names none.
        """
        raise ValueError(f"{type(self).__name__} names no layers for adapters: set lora.target to a pattern of names")

    # ----------------------------------------------------------------- pictures and latents

    @property
    @abstractmethod
    def picture_transforms(self) -> tuple[PictureTransform, PictureTransform]:
        """How pictures are resized for the autoencoder, and for the vision encoder."""

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """D, values of a latent token."""

    @abstractmethod
    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of latent tokens of a picture of that many pixels. Raises ValueError if impossible."""

    @abstractmethod
    def encode_image(self, pixels_NCHW: Tensor) -> Tensor:
        """Clean latent tokens [N, L, D] of pictures in [-1, 1]."""

    @abstractmethod
    def decode_latents(self, latents_NLD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pictures [N, 3, height, width] in about [-1, 1]."""

    # ----------------------------------------------------------------- text

    def encode_text(self, text: str, *, control: bool = False) -> Tensor:
        """Token ids of a text, without delimiters, int64 [T] on the model's device.

        What reads like a control token (`<|im_end|>`) is text, whoever wrote it; with `control` it is obeyed.
        """
        ids = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] if control else plain_ids(self.tokenizer, text)
        )
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def decode_text(self, ids_T: Tensor) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode(ids_T.tolist(), skip_special_tokens=True).strip()

    # ----------------------------------------------------------------- contexts

    @abstractmethod
    def static_context(self, rows: int, capacity: int) -> Context:
        """An empty context with room for `capacity` tokens, for use without gradients."""

    @abstractmethod
    def functional_context(self, rows: int) -> Context:
        """An empty context that gradients flow through."""

    @abstractmethod
    def text_room(self, tokens: int) -> int:
        """Room that a text of that many tokens takes in a context, with its delimiters."""

    @abstractmethod
    def picture_room(self, height: int, width: int) -> int:
        """Room that a picture takes which the vision encoder reads; sides in pixels. Raises as `append_picture`."""

    @abstractmethod
    def latent_room(self, grid: tuple[int, int]) -> int:
        """Room that the latents of a picture take, as a clean picture or as a noised one."""

    @abstractmethod
    def append_text(self, context: Context, ids: Sequence[Tensor]) -> Context:
        """Read one text per row."""

    @abstractmethod
    def append_picture(self, context: Context, pixels: Sequence[Tensor]) -> Context:
        """Read one picture [3, height, width] in [-1, 1] per row through the vision encoder.

        Raises ValueError for a size that it cannot read, and for a backbone that has no vision encoder.
        """

    @abstractmethod
    def append_latents(self, context: Context, latents_RLD: Tensor, grid: tuple[int, int]) -> Context:
        """Read one clean picture per row as latents at flow time 0."""

    # ----------------------------------------------------------------- the two heads

    @abstractmethod
    def velocity(
        self,
        latents_RKLD: Tensor,
        sigma_K: Tensor,
        contexts: Contexts,
        guidance: Guidance,
        grid: tuple[int, int],
        *,
        alike: AlikeStates | None = None,
    ) -> Tensor:
        """Guided velocity [R, K, L, D] (fp32) of K noised states per context row.

        Args:
            sigma_K: flow times, shared by the rows; guidance acts on those inside its interval.
            alike: rows whose first state (k = 0) and context are equal, so that one of them is enough. A backbone may
                leave it alone.
        """

    @abstractmethod
    def sample_text(
        self, context: Context, uniform_RT: Tensor, *, temperature: float = 1.0, top_p: float = 1.0
    ) -> tuple[Context, SampledText]:
        """Write at most T tokens per row by inverse CDF of given uniform numbers, then close the text.

        Args:
            context: needs `text_room(T)`.
            uniform_RT: numbers in [0, 1), one per token that may be drawn.
            temperature: 0 = greedy. Log-probabilities are of the full softmax after temperature.
            top_p: share of the probability that tokens are drawn from.
        """

    @abstractmethod
    def first_token_log_probs(self, context: Context) -> Tensor:
        """Log-probabilities [R, V] (fp32) of the first token of a text; the context needs `text_room(0)`."""

    @abstractmethod
    def text_log_probs(
        self, context: Context, ids: Sequence[Tensor], *, temperature: float = 1.0
    ) -> tuple[Context, TextLogProbs]:
        """Log-probabilities of texts as `sample_text` would have written them, and the context with them read.

        Args:
            ids: per row the sampled tokens (with the end token where it was sampled; a missing one is read too but
                gets no log-probability).
        """
