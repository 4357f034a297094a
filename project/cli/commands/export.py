"""Write a trained policy as a PEFT adapter, or as merged weights in the layout of its base.

An exported adapter draws exactly the same pictures as the policy. Merging rounds the weights once: with --dtype float32
the pixel values (0 to 255) change by at most 1, in bfloat16 they change by 2 to 3.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project export`."""
    parser.add_argument("--checkpoint", required=True, help="a run's .ckpt file, checkpoint folder, or hub id")
    parser.add_argument(
        "--format",
        required=True,
        choices=["peft", "bagel"],
        help="peft: only the adapter; bagel: all weights, with merged adapters, in the upstream layout",
    )
    parser.add_argument("--out", required=True, help="new folder; it appears when it is complete")
    parser.add_argument("--adapter", help="PEFT adapter (folder or hub id) to put over a checkpoint folder")
    parser.add_argument("--weights", choices=["ema", "raw"], default="raw", help="averaged or last weights of a .ckpt")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="number format of the files; default: that of the weights",
    )
    parser.add_argument("--device", default="cpu", help="device that holds the weights, e.g. cuda:0")
    parser.add_argument(
        "--max-shard-size",
        default="5GB",
        help="largest weight file; more becomes several files and an index. 0: one file, as upstream's scripts need it",
    )


def run(args: Any) -> int:
    """Write the folder. Raises ValueError or FileNotFoundError for what cannot be."""
    import torch

    from project.inference.devices import one_device
    from project.inference.export import check_unused, export_adapter, export_merged, parse_size
    from project.training.checkpoints import load_policy

    check_unused(args.out)
    limit = parse_size(args.max_shard_size)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    # As stored, whatever `dtype` is: a merge then rounds once.
    policy = load_policy(args.checkpoint, args.weights, args.adapter, one_device(args.device), "stored")
    if args.format == "peft":
        export_adapter(policy, args.out, dtype)
    else:
        export_merged(policy, args.out, dtype, limit)
    log.info("wrote %s", args.out)
    return 0
