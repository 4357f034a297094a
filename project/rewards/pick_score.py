"""PickScore: a CLIP that was trained on which of two pictures people like better (arXiv 2305.01569)."""

from __future__ import annotations

from project.rewards.clip_score import CLIPScore


class PickScore(CLIPScore):
    """`logit_scale * cos(image, text)` of the embeddings of PickScore; about 20 for a usual picture.

    Args:
        model: folder or hub id of the checkpoint.
        tokenizer: folder or hub id of its tokenizer; None = that of the checkpoint. The published checkpoint uses the
            tokenizer of a CLIP of LAION.
        scale: factor of the cosine; None = the checkpoint's own (`logit_scale`). With 1 the reward is in [-1, 1].
        device: e.g. cuda:1; None = the accelerator if there is one, else the CPU.
        batch_size: pictures per forward.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: as `CLIPScore`.
    """

    label = "pick_score"
    remedy = "take yuvalkirstain/PickScore_v1"

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        tokenizer: str | None = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        scale: float | None = None,
        device: str | None = None,
        batch_size: int = 32,
        weight: float = 1.0,
    ) -> None:
        super().__init__(model, tokenizer, scale, device, batch_size, weight)
