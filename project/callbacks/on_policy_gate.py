"""Checks at each rollout's first optimizer step that replay evaluates the very transition that rollout took."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from project.module import AlphaGRPO

log = logging.getLogger(__name__)


class OnPolicyError(MisconfigurationException):
    """Replay and rollout disagree although no weight has changed in between."""


class OnPolicyGate(Callback):
    """Before the first update of a rollout every ratio must be 1.

    In fp32 a larger error than the tolerance stops the run: something is different between rollout and replay. In
    other precisions the error is the noise floor of the log-probabilities; it is logged as
    `on_policy/max_ratio_error`, with a warning when it exceeds half the clip width (clipping then sees only noise).
    The warning names `first_step_ratio: one` as the remedy. With it, and with one optimizer step per rollout,
    nothing is clipped and the warning is left out; the noise is logged all the same.
    What is not finite stops a run in any precision. An objective without ratios (its `clip_widths` are None and it
    reports no ratio error) leaves nothing to check, which is said once. Of rollouts by an average of past policies only
    the first one is checked, because later ones are of other weights.

    Args:
        text_tolerance: largest |ratio - 1| of a text. Wider than the 1e-5 of the tests, as it bounds the maximum over a
            whole run: the fp32 log-probability of a rare token carries an error of 1e-5 by itself.
        image_tolerance: of a trained image step; a tenth of the image clip width if that is smaller.
    """

    def __init__(self, text_tolerance: float = 1e-4, image_tolerance: float = 1e-5) -> None:
        self.text_tolerance = text_tolerance
        self.image_tolerance = image_tolerance
        self._warned: set[str] = set()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: AlphaGRPO, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.callback_metrics.get("update/skipped"):
            return
        if not pl_module.updating.on_policy(pl_module.updates - 1):
            self._warn_once("average", "rollouts are drawn by an average of past policies: only the first is checked")
            return
        errors = {
            name.rpartition("/")[2]: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("on_policy/ratio_error/")
        }
        objective = pl_module.objective
        widths = objective.clip_widths
        needed = {part for part, width in (("text", widths.text), ("image", widths.image)) if width is not None}
        if missing := sorted(needed - errors.keys()):
            raise OnPolicyError(
                f"{type(objective).__name__} clips the {missing[0]} ratio but reports no `ratio_error/{missing[0]}` "
                "among its maxima: without it the gate cannot compare replay with rollout"
            )
        if not errors:
            self._warn_once(
                "ratios", "%s has no ratios: the on-policy gate has nothing to check", type(objective).__name__
            )
            return
        pl_module.log("on_policy/max_ratio_error", max(errors.values()))
        clips = {
            "text": widths.text or self.text_tolerance * 10,
            "image": widths.image or self.image_tolerance * 10,
        }
        limits = {"text": self.text_tolerance, "image": min(self.image_tolerance, clips["image"] / 10)}
        if all(errors[part] <= limits[part] for part in errors):
            return
        found = ", ".join(f"{part} {errors[part]:.1e} (limit {limits[part]:.1e})" for part in errors)
        exact = pl_module.model.dtype == torch.float32 and str(trainer.precision).startswith("32")
        if exact or not all(map(math.isfinite, errors.values())):
            raise OnPolicyError(
                f"replay does not evaluate what rollout drew: |ratio - 1| is {found} before any update. Check that "
                "both use the same sampler (schedule, noise level, window), guidance (scale, interval, renorm), "
                "temperature, system prompt, precision and weights, and that dropout is off."
            )
        exact_first = objective.first_step_ratio == "one"
        if exact_first and pl_module.updating.per_rollout == 1:
            return
        remedy = "use precision 32-true, or a wider clip"
        if objective.first_step_ratio == "measured":
            remedy = (
                "set model.init_args.objective.init_args.first_step_ratio to one (in Joint that of its parts), so that "
                f"a rollout's first optimizer step clips nothing (or {remedy})"
            )
        for part, error in errors.items():
            if error > clips[part] / 2:
                self._warn_once(
                    part,
                    "the noise floor of the %s ratio (%.1e) exceeds half the clip width (%.1e): clipping sees mostly "
                    "rounding noise; %s",
                    part,
                    error,
                    clips[part],
                    remedy,
                )

    def _warn_once(self, about: str, message: str, *values: object) -> None:
        if about not in self._warned:
            self._warned.add(about)
            log.warning(message, *values)
