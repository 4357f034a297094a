"""`UnifiedPipeline`: draw, edit and answer with a trained model from Python, in the style of diffusers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.inference.devices import one_device, usual_dtype
from project.models.base import UnifiedModel
from project.models.context import Context
from project.models.reading import Read, Reading, read
from project.models.transforms import PictureTransform
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.tasks.drawing import Canvas, draw
from project.training.checkpoints import load_policy

Generators = torch.Generator | Sequence[torch.Generator] | None
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class PipelineOutput:
    """What a call made, in the order of its prompts."""

    images: list[Image.Image]
    texts: list[str | None]
    """The reasoning before each image; None without `think`."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One thing to draw or to answer."""

    place: int
    text: str
    size: tuple[int, int]
    """Height and width [pixels] of what is drawn, and of the source."""
    source: Tensor | None
    """uint8 [height, width, 3], resized as the model reads it."""
    generator: torch.Generator | None
    noise_LD: Tensor | None = None


class UnifiedPipeline:
    """A model with the few lines that turn prompts and images into images and texts.

    Args:
        model: the policy.
        vae_transform, vit_transform: how images are resized for the two encoders; the checkpoint's own if None. Every
            image goes through the first one, also where only the vision encoder sees it (as upstream).

    Example:
        pipe = UnifiedPipeline.from_pretrained("data/shapes/umm")
        pipe("a red circle", think=True, generator=torch.Generator().manual_seed(0)).images[0]
    """

    def __init__(
        self,
        model: UnifiedModel,
        vae_transform: PictureTransform | None = None,
        vit_transform: PictureTransform | None = None,
    ) -> None:
        self.model = model.eval()
        own_vae, own_vit = model.picture_transforms
        self.vae_transform = vae_transform or own_vae
        self.vit_transform = vit_transform or own_vit

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str,
        weights: Literal["ema", "raw"] = "raw",
        adapter: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> UnifiedPipeline:
        """A checkpoint folder or hub id (with a PEFT adapter), or a run's `.ckpt`.

        Args:
            weights: of a `.ckpt`, its last parameters or their moving average.
            device: a GPU if there is one, else the CPU, if None.
            dtype: of the weights in memory, where they are never wider; bfloat16 on a GPU and float32 on a CPU if None.

        Raises as `project.training.checkpoints.load_policy`, and ValueError for a device that is not there.
        """
        device = one_device(device)
        return cls(load_policy(checkpoint, weights, adapter, device, dtype or usual_dtype(device)))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Image.Image | Sequence[Image.Image] | None = None,
        *,
        think: bool = False,
        height: int | None = None,
        width: int | None = None,
        num_steps: int | None = None,
        shift: float | None = None,
        guidance: Guidance | None = None,
        generator: Generators = None,
        latents: Sequence[Tensor] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        retokenize: bool = False,
    ) -> PipelineOutput:
        """Draw an image per prompt, or edit the given ones.

        Args:
            prompt: what to draw, or how to change `image`.
            image: to edit: one per prompt, or one for all. The result has the size that it is resized to.
            think: write a reasoning first.
            height, width: of what is drawn [pixels]; not for edits.
            num_steps, shift: of the ODE schedule; num_steps - 1 evaluations.
            guidance: upstream's for drawing and for editing if None, with the checkpoint's text scale.
            generator: of noise and sampled reasoning: one for all, or one per prompt (an image then does not depend
                on what it is drawn with).
            latents: initial noise [L, D] per prompt, in place of drawn one.
            max_tokens, temperature, top_p: of the reasoning; temperature 0 and top_p 0 are greedy.
            retokenize: decode the reasoning and encode it again before drawing, as upstream does; what is read then
                is not what was written, so training never does it.

        Raises:
            ValueError: for numbers of images, generators or latents other than that of the prompts, and for sizes
                that the model cannot draw or read.
        """
        d = self.model.defaults
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        images = _each(image, len(prompts), "images")
        if guidance is None:
            guidance = Guidance(text=d.guidance, interval=d.guidance_interval)
            if image is not None:
                guidance = Guidance(text=d.guidance, image=2.0, interval=(0.0, 1.0), renorm="text_channel")
        if image is not None and (height or width):
            raise ValueError("an edit has the size of its image: leave out height and width")
        rows = self._rows(prompts, images, generator, (height or d.height, width or d.width), latents)
        schedule = Schedule(d.num_steps if num_steps is None else num_steps, d.shift if shift is None else shift)
        drawn: dict[int, tuple[Image.Image, str | None]] = {}
        for group in _alike(rows):
            known = self._read(group, d.think_prompt if think else "", guidance)
            texts: list[str | None] = [None] * len(group)
            canvas = Canvas(height=group[0].size[0], width=group[0].size[1], guidance=guidance)
            scratch = self.model.latent_room(self.model.latent_grid(canvas.height, canvas.width))
            if think:
                main, written = self._write(known, group, max_tokens, temperature, top_p, retokenize, scratch)
                texts = list(written)
            else:
                main = known.main.select(known.row_N, room=scratch)
            contexts = known.contexts(main, room=scratch)
            noise = torch.stack([row.noise_LD for row in group if row.noise_LD is not None])
            segments = draw(self.model, contexts, (), canvas, Sampler(schedule=schedule), initial_NLD=noise)
            for row, text, segment in zip(group, texts, segments, strict=True):
                drawn[row.place] = Image.fromarray(segment.pixels_HWC.numpy()), text
        return PipelineOutput(
            images=[drawn[n][0] for n in range(len(prompts))], texts=[drawn[n][1] for n in range(len(prompts))]
        )

    @torch.no_grad()
    def ask(
        self,
        question: str | Sequence[str],
        image: Image.Image | Sequence[Image.Image] | None = None,
        *,
        think: bool = False,
        generator: Generators = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
    ) -> list[str]:
        """Answer a question per image. Arguments and errors are those of a call; greedy unless told otherwise."""
        questions = [question] if isinstance(question, str) else list(question)
        images = _each(image, len(questions), "images")
        answers: dict[int, str] = {}
        for group in _alike(self._rows(questions, images, generator)):
            system = self.model.defaults.ask_think_prompt if think else ""
            known = self._read(group, system, None)
            _, texts = self._write(known, group, max_tokens, temperature, top_p, retokenize=False)
            answers.update({row.place: text for row, text in zip(group, texts, strict=True)})
        return [answers[n] for n in range(len(questions))]

    # ----------------------------------------------------------------- helpers

    def _rows(
        self,
        prompts: Sequence[str],
        images: Sequence[Image.Image | None],
        generator: Generators,
        size: tuple[int, int] | None = None,
        latents: Sequence[Tensor] | None = None,
    ) -> list[_Row]:
        """What is to be made; noise is drawn here, in the order of the prompts."""
        if latents is not None and len(latents) != len(prompts):
            raise ValueError(f"{len(latents)} latents for {len(prompts)} prompts: give one each")
        generators = _each(generator, len(prompts), "generators")
        resized: dict[int, Tensor] = {}
        rows = []
        for place, (text, image, own) in enumerate(zip(prompts, images, generators, strict=True)):
            if image is not None and not isinstance(image, Image.Image):
                raise ValueError(f"{image!r} is no picture: give a PIL image (PIL.Image.open opens a file)")
            height, width = size or (0, 0)
            source = None
            if image is not None:
                if id(image) not in resized:  # rows of one picture share it, and it is then read once
                    resized[id(image)] = torch.from_numpy(np.array(self.vae_transform.resize(image)))
                source = resized[id(image)]
                height, width = source.shape[:2]
            noise_LD = None
            if size is not None:
                rows_, columns = self.model.latent_grid(height, width)
                shape = (rows_ * columns, self.model.latent_size)
                noise_LD = torch.randn(shape, generator=own) if latents is None else latents[place]
                if tuple(noise_LD.shape) != shape:
                    raise ValueError(f"latents of shape {tuple(noise_LD.shape)}: {height}x{width} pixels need {shape}")
            rows.append(
                _Row(
                    place=place,
                    text=text,
                    size=(height, width),
                    source=source,
                    generator=own,
                    noise_LD=noise_LD,
                )
            )
        return rows

    def _read(self, group: Sequence[_Row], system: str, guidance: Guidance | None) -> Read:
        """Images and texts. Without guidance nothing will be drawn, and the images are only looked at."""
        return read(
            self.model,
            [Reading(text=row.text, picture=row.source) for row in group],
            lambda room: self.model.static_context(1, room),
            system=system,
            latents=guidance is not None,
            image_free=guidance is not None and guidance.image > 1,
            vit=self.vit_transform,
        )

    def _write(
        self,
        known: Read,
        group: Sequence[_Row],
        max_tokens: int | None,
        temperature: float | None,
        top_p: float | None,
        retokenize: bool,
        room: int = 0,
    ) -> tuple[Context, list[str]]:
        """A text per row, and the context with it read and `room` more places."""
        model, d = self.model, self.model.defaults
        limit = d.max_tokens if max_tokens is None else max_tokens
        top_p = d.top_p if top_p is None else top_p
        temperature = d.temperature if temperature is None else temperature
        numbers = torch.stack([torch.rand(limit, generator=row.generator) for row in group])
        after, sampled = model.sample_text(
            known.main.select(known.row_N, room=model.text_room(limit) + room),
            numbers,
            temperature=temperature if top_p > 0 else 0.0,
            top_p=top_p or 1.0,
        )
        lengths = (sampled.length_R - sampled.finished_R.long()).tolist()
        texts = [
            model.tokenizer.decode(ids[:length].tolist()) for ids, length in zip(sampled.ids_RT, lengths, strict=True)
        ]
        if retokenize:
            again = [model.encode_text(text) for text in texts]
            longest = model.text_room(max(map(len, again)))
            after = model.append_text(known.main.select(known.row_N, room=longest + room), again)
        return after, texts


def _each(value: Value | Sequence[Value] | None, number: int, what: str) -> list[Value | None]:
    """One value per prompt."""
    if not isinstance(value, (list, tuple)):
        return [value] * number  # type: ignore[list-item]
    if len(value) != number:
        raise ValueError(f"{len(value)} {what} for {number} prompts: give one, or one each")
    return list(value)


def _alike(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows that can be drawn together: of one size, all with a source image or all without."""
    groups: dict[tuple[tuple[int, int], bool], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.size, row.source is None].append(row)
    return list(groups.values())
