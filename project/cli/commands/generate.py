"""Draw pictures for prompts, edit pictures, or answer questions about them.

The picture of the first prompt is 0000.png, that of the second 0001.png. With --num-images 3 the first prompt also has
0000_1.png and 0000_2.png, each with its own noise and reasoning; 0000.png is the same as without the option.
trajectories.jsonl has a row for each picture: file, prompt, reasoning and settings. With --rounds, 0000_round0.png,
0000_round1.png ... are the pictures of every round, the last of which is 0000.png, and 0000_strip.png shows them side
by side. With --ask, answers.jsonl has a row for each question. Options without a default follow the checkpoint.
"""

from __future__ import annotations

import logging
import math
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

DEVICE = (
    "cpu, cuda:1, several such as cuda:0,cuda:1, or all GPUs (all). Several devices share the prompts; each has a "
    "process with a copy of the model. Default: a GPU if there is one, else cpu"
)
DTYPE = "number format of the weights in memory. Default: bfloat16 on a GPU, float32 on a CPU"


def add_arguments(parser: Any) -> None:
    """Options of `python -m project generate`."""
    from project.benchmarks.base import Benchmark
    from project.judges.base import Judge

    parser.add_argument("--checkpoint", required=True, help="checkpoint folder, hub id, or a run's .ckpt file")
    parser.add_argument("--weights", choices=["ema", "raw"], default="raw", help="averaged or last weights of a .ckpt")
    parser.add_argument("--adapter", help="PEFT adapter (folder or hub id) to put over a checkpoint folder")
    parser.add_argument(
        "--prompts", required=True, help="text file, one prompt per line, or JSONL with a `prompt` each"
    )
    parser.add_argument("--out", required=True, help="folder for 0000.png ... and trajectories.jsonl")
    parser.add_argument("--device", help=DEVICE)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help=DTYPE)
    parser.add_argument("--num-images", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and sampled reasoning")
    parser.add_argument("--num-steps", type=int, help="points of the schedule: evaluations of the model + 1")
    parser.add_argument("--guidance", type=float, help="text guidance scale; 1 = off")
    parser.add_argument("--height", type=int, help="height of the pictures [pixels]")
    parser.add_argument("--width", type=int, help="width of the pictures [pixels]")
    parser.add_argument("--max-tokens", type=int, help="largest number of reasoning tokens")
    parser.add_argument("--temperature", type=float, help="temperature of the reasoning; 0 = greedy")
    parser.add_argument("--top-p", type=float, help="share of the probability to draw tokens from; 0 = greedy")
    parser.add_argument("--think", action=BooleanOptionalAction, default=True, help="reason before drawing")
    parser.add_argument("--image", help="picture that all prompts edit or ask about; a JSONL row can name its own")
    parser.add_argument("--ask", action="store_true", help="the prompts are questions: write answers.jsonl")
    parser.add_argument("--image-guidance", type=float, help="image guidance scale of edits; 1 = off")
    parser.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LO", "HI"), help="flow times with guidance"
    )
    parser.add_argument("--renorm", choices=["global", "channel", "text_channel"], help="norm that guidance limits")
    parser.add_argument("--retokenize", action="store_true", help="decode and encode the reasoning, as upstream does")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of refinement: look, reflect, draw again")
    parser.add_argument(
        "--gate",
        choices=["none", "judge", "oracle"],
        default="none",
        help="none: refine every picture; judge: those that --judge doubts; oracle: those that --benchmark marks wrong",
    )
    parser.add_argument("--wording", help='text beside a picture to refine, with "{prompt}"')
    parser.add_argument("--gate-below", type=float, default=0.5, help="score (0 to 1) below which a picture is doubted")
    parser.add_argument("--judge", type=Judge | None, help="class path of the judge that scores every round")
    parser.add_argument("--benchmark", type=Benchmark | None, help="class path of the oracle's benchmark")
    parser.add_argument("--batch-size", type=int, default=32, help="largest number of pictures drawn together")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption of the same command")


def run(args: Any) -> int:
    """Write the pictures and `trajectories.jsonl`, or the answers, each as soon as it is made.

    Raises ValueError or FileNotFoundError for what cannot be; ValueError with how to go on for what fails on the way.
    """
    from dataclasses import replace
    from functools import partial

    from project.core.errors import ScoringFailed
    from project.core.images import read_picture
    from project.data.prompts import read_prompts
    from project.inference.devices import chosen_devices
    from project.inference.generation import batches, check_sources, places_of
    from project.inference.processes import team
    from project.inference.result_folder import ANSWERS, TRAJECTORIES, write_rows

    if args.ask and args.num_images != 1:
        raise ValueError("--num-images is of pictures: a question has one answer, leave it out with --ask")
    devices = chosen_devices(args.device)
    prompts = read_prompts(args.prompts)
    if args.image is not None:
        read_picture(args.image)
        prompts = [replace(prompt, image=args.image) for prompt in prompts]
    else:
        check_sources(prompts)
    places = places_of(prompts, args.num_images)
    file = Path(args.out) / (ANSWERS if args.ask else TRAJECTORIES)
    with team(partial(_worker, args, prompts, places), devices[: len(places)]) as workers:
        finished = workers.told
        left = [place for place in places if place not in finished]
        # Smaller batches where there are more devices than batches.
        size = min(args.batch_size, math.ceil(len(left) / len(devices)) or 1)
        made = _progress(workers.work(batches(left, size)), len(places), len(finished), args.ask)
        try:
            written = write_rows(file, made, finished)
        except (ScoringFailed, ValueError, OSError) as error:
            if not file.is_file():
                raise ValueError(str(error)) from error
            raise ValueError(
                f"{error}\n{file} lists what was made before; give the same command with --resume to make the rest"
            ) from error
    kept = f" ({len(finished)} were there)" if finished else ""
    log.info("wrote %d %s and %s to %s%s", written, "answers" if args.ask else "pictures", file.name, args.out, kept)
    return 0


def _worker(args: Any, prompts: Any, places: Any, device: Any) -> Any:
    """A device with the model on it; it tells the rows of what was made before."""
    import torch

    from project.inference.generation import answer, generate, settings_for
    from project.inference.pipeline import UnifiedPipeline
    from project.inference.processes import Worker
    from project.inference.result_folder import (
        answer_rows,
        finished_answers,
        finished_trajectories,
        saved_trajectories,
    )

    refinement = _refinement(args, prompts)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    pipe = UnifiedPipeline.from_pretrained(args.checkpoint, args.weights, args.adapter, device, dtype)
    settings = settings_for(
        pipe.model,
        seed=args.seed,
        think=args.think,
        batch_size=args.batch_size,
        num_steps=args.num_steps,
        guidance=args.guidance,
        image_guidance=args.image_guidance,
        guidance_interval=tuple(args.guidance_interval) if args.guidance_interval else None,
        renorm=args.renorm,
        height=args.height,
        width=args.width,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        retokenize=args.retokenize,
        refinement=refinement,
    )
    out = Path(args.out)
    if args.ask:
        return Worker(
            finished_answers(out, prompts) if args.resume else {},
            lambda batch: answer_rows(prompts, answer(pipe, prompts, settings, batch)),
        )
    return Worker(
        finished_trajectories(out, prompts, settings, places) if args.resume else {},
        lambda batch: saved_trajectories(out, generate(pipe, prompts, settings, batch), settings),
    )


def _progress(made: Any, total: int, finished: int, ask: bool) -> Any:
    from tqdm import tqdm

    return tqdm(made, total=total, initial=finished, unit="answer" if ask else "picture", desc="generate")


def _refinement(args: Any, prompts: Any) -> Any:
    """Who decides what is refined, ready to work. Raises ValueError for prompts or a judge that it cannot work with."""
    from project.benchmarks.base import Benchmark
    from project.core.class_paths import instantiate
    from project.inference.refinement import BenchmarkCritic, Critic, JudgeCritic, Refinement
    from project.judges.base import Judge

    critic: Critic | None = None
    if args.gate == "oracle" and args.benchmark is not None:
        critic = BenchmarkCritic(instantiate(Benchmark, args.benchmark), prompts)  # type: ignore[type-abstract]
    elif args.gate != "oracle" and args.judge is not None:
        critic = JudgeCritic(instantiate(Judge, args.judge), prompts)  # type: ignore[type-abstract]
    return Refinement(rounds=args.rounds, gate=args.gate, critic=critic, below=args.gate_below, wording=args.wording)
