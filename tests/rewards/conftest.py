"""Trajectories of given pictures and texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from project.trajectory import ImageSegment, Prompt, SampleKey, TextSegment, Trajectory


def make_trajectory(
    prompt: Prompt | str = "a red circle", picture: int = 0, texts: tuple[str, ...] = (), **columns: Any
) -> Trajectory:
    """One sample with these texts and a plain picture of this grey value."""
    if isinstance(prompt, str):
        prompt = Prompt(id=prompt, text=prompt, columns=columns)
    image = ImageSegment(
        latents_KLD=torch.zeros(0, 1, 1),
        next_KLD=torch.zeros(0, 1, 1),
        step_K=torch.zeros(0).long(),
        log_prob_K=torch.zeros(0),
        final_LD=torch.zeros(1, 1),
        pixels_HWC=torch.full((4, 6, 3), picture, dtype=torch.uint8),
    )
    written = [
        TextSegment(
            ids_T=torch.arange(2), log_prob_T=torch.zeros(2), entropy_T=torch.zeros(2), finished=True, text=text
        )
        for text in texts
    ]
    key = SampleKey(seed=0, update=0, prompt=prompt.id, sample=picture)
    return Trajectory(prompt=prompt, key=key, segments=(*written, image))


@pytest.fixture
def trajectory():
    return make_trajectory
