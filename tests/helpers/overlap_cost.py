"""What it saves to judge pictures while others are drawn: seconds with and without overlap, in turns.

    python -m tests.helpers.overlap_cost --turns 3 --seconds 0.3

The embedded model draws DPG's questions of `published_world`; a server on this machine answers each of them after so
many seconds. An evaluation is timed from its first to its last hook, without the start of the program.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from project.__main__ import main
from tests.helpers import chat_server, published_world
from tests.helpers.timed_benchmark import LATEST, Times


def evaluate(folder: Path, name: str, *, overlap: bool, seconds: float, items: int, steps: int) -> Times:
    """One evaluation of two pictures for each item, in batches of four."""
    with chat_server.ChatServer(seconds=seconds) as server:
        world = folder / name
        world.mkdir()
        init_args = chat_server.options(server.url, concurrency=12)
        arguments = {"init_args": init_args, "overlap": overlap, "kind": "tests.helpers.timed_benchmark.TimedBenchmark"}
        published_world.write_world(world, items, "project.judges.OpenAIJudge", **arguments)
        code = main(published_world.command(world, name, f"--model.init_args.evaluation.schedule.num_steps={steps}"))
        assert code == 0
        times = LATEST.pop()
        times.requests = [span for span in server.times if span[0] >= times.began]
    return times


def table(turns: Iterable[tuple[Times, Times]]) -> str:
    """A row for each turn and their medians; in each turn the evaluation with overlap and the one without."""
    rows = []
    for n, (beside, after) in enumerate(turns, start=1):
        drawing = sum(end - start for start, end in after.drawing)
        share = f"{beside.in_flight} of {len(beside.requests)}", f"{after.in_flight} of {len(after.requests)}"
        rows.append((str(n), beside.seconds, after.seconds, drawing, *share))
    medians = [statistics.median(row[place] for row in rows) for place in (1, 2, 3)]
    rows.append(("median", *medians, "", ""))
    heads = ("turn", "with overlap [s]", "without [s]", "drawing alone [s]", "in flight while drawing", "without")
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for name, *values, beside_share, after_share in rows:
        lines.append(f"| {' | '.join([name, *(f'{value:.2f}' for value in values), beside_share, after_share])} |")
    return "\n".join(lines) + "\n"


def run(turns: int, seconds: float, items: int, steps: int) -> list[tuple[Times, Times]]:
    """(with overlap, without) of each turn; which comes first changes from turn to turn."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(turns):
            pair = {}
            for overlap in (True, False) if n % 2 == 0 else (False, True):
                name = f"{n}_{'beside' if overlap else 'after'}"
                pair[overlap] = evaluate(Path(folder), name, overlap=overlap, seconds=seconds, items=items, steps=steps)
            found.append((pair[True], pair[False]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="evaluations with overlap, and as many without")
    parser.add_argument("--seconds", type=float, default=0.3, help="that the server takes for an answer")
    parser.add_argument("--items", type=int, default=12, help="prompts, with two pictures each")
    parser.add_argument("--steps", type=int, default=11, help="points of the schedule")
    sys.stdout.write(table(run(**vars(parser.parse_args()))))
