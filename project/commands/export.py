"""Write a trained policy as a PEFT adapter or as a checkpoint in the backbone's own layout."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project export`."""
    parser.add_argument("--checkpoint", required=True, help="a run's .ckpt file, or a checkpoint folder or hub id")
    parser.add_argument("--adapter", help="PEFT adapter to put over a checkpoint folder")
    parser.add_argument("--weights", choices=["ema", "raw"], default="raw", help="of a .ckpt: average or last")
    parser.add_argument("--format", choices=["peft", "bagel"], required=True, help="the adapter, or everything merged")
    parser.add_argument("--out", required=True, help="folder to make")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of merged weights")
    parser.add_argument("--max-shard-size", default="5GB", help="of a weight file")


def run(args: Any) -> int:
    """Write the folder. Raises ValueError or FileNotFoundError for what cannot be."""
    import torch

    from project.checkpoints import load_policy
    from project.export import export

    model = load_policy(args.checkpoint, args.weights, args.adapter)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    export(model, args.out, "peft" if args.format == "peft" else "merged", dtype, args.max_shard_size)
    log.info("wrote %s", args.out)
    return 0
