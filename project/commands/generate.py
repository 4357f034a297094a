"""Draw pictures for prompts, with the reasoning that led to them."""

from __future__ import annotations

import logging
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project generate`."""
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder, hub id, or a run's .ckpt file")
    parser.add_argument("--weights", choices=["ema", "raw"], default="raw", help="of a .ckpt: average or last")
    parser.add_argument("--prompts", required=True, help="text file, one prompt a line, or JSONL with a `prompt` each")
    parser.add_argument("--out", required=True, help="folder for 0000.png ... and trajectories.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of noise and sampled reasoning")
    parser.add_argument("--num-steps", type=int, help="points of the schedule (evaluations + 1)")
    parser.add_argument("--guidance", type=float, help="text guidance scale; 1 = off")
    parser.add_argument("--height", type=int, help="pixels")
    parser.add_argument("--width", type=int, help="pixels")
    parser.add_argument("--max-tokens", type=int, help="most reasoning tokens")
    parser.add_argument("--top-p", type=float, help="of the reasoning; 0 = greedy")
    parser.add_argument("--think", action=BooleanOptionalAction, default=True, help="reason before drawing")
    parser.add_argument("--batch-size", type=int, default=32, help="prompts drawn together")


def run(args: Any) -> int:
    """Write the pictures and `trajectories.jsonl`. Raises ValueError or FileNotFoundError for what cannot be."""
    from tqdm import tqdm

    from project.checkpoints import load_policy
    from project.generation import generate, settings_for, write_trajectories
    from project.prompts import read_prompts

    prompts = read_prompts(args.prompts)
    model = load_policy(args.checkpoint, args.weights)
    settings = settings_for(
        model,
        seed=args.seed,
        think=args.think,
        batch_size=args.batch_size,
        num_steps=args.num_steps,
        guidance=args.guidance,
        height=args.height,
        width=args.width,
        max_tokens=args.max_tokens,
        top_p=args.top_p,
    )
    drawn = tqdm(generate(model, prompts, settings), total=len(prompts), unit="picture", desc="generate")
    written = write_trajectories(Path(args.out), drawn, settings)
    log.info("wrote %d pictures and trajectories.jsonl to %s", written, args.out)
    return 0
