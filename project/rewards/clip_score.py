"""How similar CLIP finds picture and prompt (arXiv 2104.08718)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from project.core.metrics import Mean
from project.judges.first_token import device_of
from project.models.clip import LoadedCLIP, load_clip
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Trajectory


class CLIPScore(Reward):
    """`logit_scale * cos(image, text)` of the embeddings of a CLIP; of OpenAI's own, 100 times the cosine.

    CLIP reads 77 tokens; `reward/clip_score/cut` is the share of prompts whose end it does not read. The weights are
    read in fp32 when they are first needed (in `preflight`, before training).

    Args:
        model: folder or hub id of a CLIP checkpoint of transformers.
        tokenizer: folder or hub id of its tokenizer; None = that of the checkpoint.
        scale: factor of the cosine; None = the checkpoint's own (`logit_scale`). With 1 the reward is in [-1, 1].
        device: e.g. cuda:1; None = the accelerator if there is one, else the CPU.
        batch_size: pictures per forward.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: for a batch size below 1, or a scale that is not above 0.
    """

    label = "clip_score"
    """Of its metrics."""
    remedy = "take openai/clip-vit-large-patch14"

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",
        tokenizer: str | None = None,
        scale: float | None = None,
        device: str | None = None,
        batch_size: int = 32,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give 1 or more")
        if scale is not None and not scale > 0:
            raise ValueError(f"scale={scale}: give a number above 0")
        self.model = model
        self.tokenizer = tokenizer
        self.scale = scale
        self.device = device
        self.batch_size = batch_size
        self._loaded: LoadedCLIP | None = None

    def preflight(self) -> None:
        """Loads the checkpoint. Raises FileNotFoundError or ValueError as `project.models.clip.load_clip` does."""
        self._clip()

    @torch.no_grad()
    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Each prompt of a batch is read once."""
        clip = self._clip()
        scale = clip.network.logit_scale.exp().item() if self.scale is None else self.scale
        rewards: list[torch.Tensor] = [torch.zeros(0)]
        for start in range(0, len(trajectories), self.batch_size):
            batch = trajectories[start : start + self.batch_size]
            own = list(dict.fromkeys(t.prompt.text for t in batch))
            texts = dict(zip(own, clip.of_texts(own), strict=True))
            seen_ND = clip.of_pictures([Image.fromarray(t.image.pixels_HWC.numpy()) for t in batch])
            text_ND = torch.stack([texts[t.prompt.text] for t in batch])
            rewards.append((scale * (seen_ND * text_ND).sum(1)).cpu())
        reward_N = torch.cat(rewards)
        cut = [clip.too_long(prompt) for prompt in {t.prompt.text for t in trajectories}]
        return RewardOutput(
            reward_N=reward_N,
            metrics={
                f"reward/{self.label}": Mean.over(reward_N.tolist()),
                f"reward/{self.label}/cut": Mean.over(cut),
            },
        )

    def _clip(self) -> LoadedCLIP:
        if self._loaded is None:
            device = device_of(self.device)
            self._loaded = load_clip(self.model, device, tokenizer=self.tokenizer, remedy=self.remedy)
        return self._loaded
