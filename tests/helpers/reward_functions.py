"""Functions in TRL's signature, and a reader of texts, named by import path in tests."""

from __future__ import annotations

import asyncio

import numpy as np
import torch

from project.rewards.text_reader import TextReader


def lengths(prompts, completions, **kwargs):
    return [len(prompt) + len(completion) / 100 for prompt, completion in zip(prompts, completions, strict=True)]


async def brightness(images, kind, **kwargs):
    await asyncio.sleep(0)
    return [None if k is None else image.getpixel((0, 0))[0] / 255 for image, k in zip(images, kind, strict=True)]


def only_images(images):
    return [image.size[0] for image in images]


def too_few(prompts, completions, **kwargs):
    return [1.0]


def infinite(prompts, completions, **kwargs):
    return [float("inf")] * len(prompts)


def texts(prompts, completions, **kwargs):
    return "ab"


def nothing(prompts, completions, **kwargs):
    return None


NUMBER = 3


def one_tensor(prompts, completions, **kwargs):
    return torch.tensor([0.25] * len(prompts), requires_grad=True)


def one_array(prompts, completions, **kwargs):
    return np.array([0.25] * len(prompts))


def tensors(prompts, completions, **kwargs):
    return [torch.tensor(0.25), np.float32(0.25)][: len(prompts)]


def truths(prompts, completions, **kwargs):
    return [np.bool_(True), torch.tensor(True)][: len(prompts)]


def vectors(prompts, completions, **kwargs):
    return [torch.zeros(2)] * len(prompts)


def unknown_tensor(prompts, completions, **kwargs):
    return [torch.tensor(float("nan"))] * len(prompts)


calls, failing = 0, None


def fails_at(completions, images, **kwargs):
    """The length of the text and the first pixel; raises at call number `failing`."""
    global calls
    calls += 1
    if failing is not None and calls > failing:
        raise KeyError("no such column")
    return [
        len(text) / 100 + sum(image.getpixel((0, 0))) / 765 for text, image in zip(completions, images, strict=True)
    ]


class SomeWords(TextReader):
    """Finds the same words in every picture that is not white."""

    def preflight(self):
        """Nothing can be missing."""

    def read(self, images):
        return [[] if image.min() == 255 else ["direct", "words"] for image in images]
