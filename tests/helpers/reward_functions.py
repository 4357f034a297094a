"""Functions in TRL's signature, named by import path in tests/rewards/test_function.py."""

from __future__ import annotations

import asyncio


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
