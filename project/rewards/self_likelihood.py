"""The prompt's likelihood by a unified model's own understanding of the picture: a reward without any server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch.distributed.tensor import DTensor

from project.judges.first_token import device_of
from project.models.base import ModelSource, UnifiedModel
from project.models.reading import Reading, read
from project.rewards.likelihood import Baseline, LikelihoodReward


class SelfLikelihood(LikelihoodReward):
    """A unified model reads the picture with its vision encoder; the reward is how probable the prompt then is.

    With `copy: frozen` the weights never change, but the copy takes memory on each rank. With `copy: policy` the
    trained model judges itself with the weights of the rollout. This takes no memory, but training changes the measure.

    Args:
        copy: a `frozen` copy of the policy before training, or the `policy` itself.
        policy: where the frozen copy comes from, if not from the model that is trained.
        instruction: text between picture and prompt. The embedded model knows "describe".
        baseline: `no_picture` subtracts the value without the picture, see `LikelihoodReward`.
        device: device of the frozen copy, e.g. cuda:1; None = the accelerator if there is one, else the CPU.
        batch_size: prompts per forward.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: for `policy` or `device` with `copy: policy`, and as `LikelihoodReward`.
    """

    def __init__(
        self,
        copy: Literal["frozen", "policy"] = "frozen",
        policy: ModelSource | None = None,
        instruction: str = "Describe this picture.",
        baseline: Baseline = "none",
        device: str | None = None,
        batch_size: int = 32,
        weight: float = 1.0,
    ) -> None:
        super().__init__(instruction, baseline, batch_size, weight)
        if copy not in ("frozen", "policy"):
            raise ValueError(f"copy={copy!r} is unknown: choose frozen or policy")
        if copy == "policy" and (policy is not None or device is not None):
            raise ValueError("copy=policy is the model that is trained: leave policy and device out, or take frozen")
        self.copy = copy
        self.policy = policy
        self.device = device
        self._module: tuple[LightningModule, ...] = ()
        self._frozen: UnifiedModel | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes hold of the model that is trained.

        Raises ValueError if `copy: policy` would read its weights in a thread beside the rollout (`overlap`).
        """
        self._module = (pl_module,)
        if self.copy == "policy" and getattr(pl_module, "overlap", False):
            raise ValueError(
                "SelfLikelihood with copy=policy reads the weights that are drawing, and overlap would ask it in a "
                "thread beside the drawing: set model.init_args.overlap to false, or copy to frozen"
            )

    def preflight(self) -> None:
        """Loads the frozen copy and reads a grey picture.

        Raises:
            FileNotFoundError, ValueError: as the source does; also ValueError if the model sees no pictures, if
                there is no model, or if the policy's weights are shared out over ranks (`fsdp2`).
        """
        sides = self._model().defaults
        grey = np.full((sides.height, sides.width, 3), 128, dtype=np.uint8)
        self._in_batches(["a grey picture"], [grey])

    @torch.no_grad()
    def mean_log_probs(self, prompts: Sequence[str], images: Sequence[np.ndarray] | None) -> list[float]:
        model = self._model()
        vae, _ = model.picture_transforms
        pictures: list[torch.Tensor | None] = [None] * len(prompts)
        if images is not None:
            pictures = [torch.from_numpy(np.array(vae.resize(Image.fromarray(image)))) for image in images]
        ids = [model.encode_text(prompt) for prompt in prompts]
        known = read(
            model,
            [Reading(text=self.instruction, picture=picture) for picture in pictures],
            lambda room: model.static_context(1, room),
            latents=False,
        )
        room = model.text_room(max(map(len, ids)))
        # The state before the instruction is what there is without one.
        before = (known.main, known.row_N) if self.instruction else (known.text_free, known.base_N)
        context = before[0].select(before[1], room=room)
        _, found = model.text_log_probs(context, ids)
        mean_N = (found.log_prob_RT * found.mask_RT).double().sum(1) / found.mask_RT.sum(1)
        values: list[float] = mean_N.tolist()
        return values

    def _model(self) -> UnifiedModel:
        if self.copy == "frozen":
            if self._frozen is None:
                self._frozen = self._load()
            return self._frozen
        if not self._module:
            raise ValueError("SelfLikelihood with copy=policy judges the model that is trained, and none is: train it")
        model: UnifiedModel = self._module[0].model  # type: ignore[assignment]
        if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
            # Each rank has its own number of different pictures, so forwards would not be in step.
            raise ValueError(
                "SelfLikelihood with copy=policy reads whole weights, and fsdp2 shares them out over the ranks: set "
                "copy to frozen, or take another strategy"
            )
        return model

    def _load(self) -> UnifiedModel:
        source = self.policy or getattr(self._module[0] if self._module else None, "policy_source", None)
        if source is None:
            raise ValueError(
                "SelfLikelihood has no model to copy: give its policy, e.g. project.models.BagelCheckpoint"
            )
        device = device_of(self.device)
        # Loading must not move the run's randomness.
        with torch.random.fork_rng(), torch.device(device):
            loaded: UnifiedModel = source.load().requires_grad_(False).eval()
        return loaded.to(device)
