"""Undo the training of some parts of the model, to find out which part changed the scores.

`untrain --checkpoint RUN/checkpoints/last.ckpt --parts embed_tokens --out RUN/checkpoints/x.ckpt` writes a checkpoint
without the trained values of some parameters. A command that loads it (`validate --ckpt_path`, `generate`) then uses
the values from before training for these parameters, and the trained values for all others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


def add_arguments(parser: Any) -> None:
    """Options of `python -m project untrain`."""
    parser.add_argument("--checkpoint", required=True, help="a run's .ckpt file")
    parser.add_argument(
        "--parts",
        required=True,
        nargs="+",
        help="patterns of parameter names (re.search); matching parameters get their values from before training",
    )
    parser.add_argument("--out", required=True, help="new .ckpt file; beside the old one, `generate` finds its config")


def run(args: Any) -> int:
    """Write the checkpoint. Raises ValueError or FileNotFoundError for what cannot be."""
    from project.training.checkpoints import read_checkpoint, write_checkpoint
    from project.training.trainable import matching

    out = Path(args.out)
    if out.exists():
        raise ValueError(f"{out} exists: give the name of a new file")
    checkpoint = read_checkpoint(Path(args.checkpoint))
    names = matching(checkpoint["state_dict"], args.parts, "--parts", "trained parameter")
    write_checkpoint(out, without(checkpoint, names))
    log.info("wrote %s: %d of %d trained tensors are left out", out, len(names), len(checkpoint["state_dict"]))
    return 0


def without(checkpoint: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The checkpoint less some trained parameters and their averages: what loads it leaves them as they were."""

    def kept(tensors: Mapping[str, T]) -> dict[str, T]:
        return {name: tensor for name, tensor in tensors.items() if name not in names}

    callbacks = {
        name: {**state, "average": kept(state["average"])} if "average" in state else state
        for name, state in checkpoint.get("callbacks", {}).items()
    }
    return {**checkpoint, "state_dict": kept(checkpoint["state_dict"]), "callbacks": callbacks}
