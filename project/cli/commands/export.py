"""Write a trained policy as a PEFT adapter, or as merged weights in the layout of its base.

A PEFT adapter draws the very pictures of the policy. Merged weights are rounded once: with --dtype float32 pictures
stay within 1 level of 255 of the policy's; in bfloat16 they move by 2 to 3 levels.
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
        help="peft: the adapter alone; bagel: all weights, adapters merged, in the upstream layout",
    )
    parser.add_argument("--out", required=True, help="new folder; it appears when it is complete")
    parser.add_argument("--adapter", help="PEFT adapter (folder or hub id) to put over a checkpoint folder")
    parser.add_argument("--weights", choices=["ema", "raw"], default="raw", help="of a .ckpt: average or last")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the files; default: that of the weights. A merge in bfloat16 moves pictures by 2 to 3 levels",
    )
    parser.add_argument("--device", default="cpu", help="that holds the weights meanwhile, e.g. cuda:0")
    parser.add_argument(
        "--max-shard-size",
        default="5GB",
        help="of a weight file; larger weights become several and an index. 0: one file, as upstream's scripts want it",
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
