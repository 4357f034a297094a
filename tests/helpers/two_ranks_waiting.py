"""One of two ranks is kept by its judge for longer than the time-out of collectives:
`python -m tests.helpers.two_ranks_waiting RANK FILE`.

Prints what became of the two when the time-out was lengthened, and when it was not. FILE is where they meet.
"""

import sys
import time
from datetime import timedelta
from types import SimpleNamespace

from torch import distributed

from project.core.ranks import Ranks
from project.training.strategies import lengthen_timeout

TIMEOUT = timedelta(seconds=1)
KEPT = 2.5
"""Seconds that rank 1 is kept."""


def meet(rank, seconds):
    """What became of the ranks, where judges may keep them for these seconds."""
    distributed.distributed_c10d._set_pg_timeout(TIMEOUT)
    lengthen_timeout(SimpleNamespace(_timeout=TIMEOUT), seconds)
    try:
        time.sleep(KEPT * rank)
        Ranks(rank=rank, size=2).gather(rank)
    except RuntimeError:
        return "lost"
    return "met"


if __name__ == "__main__":
    rank = int(sys.argv[1])
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    distributed.barrier()
    print(meet(rank, 30.0), meet(rank, 0.0))
