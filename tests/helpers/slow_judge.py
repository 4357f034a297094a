"""The detector judge of the embedded world, slow enough to be killed in the middle."""

from __future__ import annotations

import time
from typing import Any

from project.shapes.judge import DetectorJudge


class SlowJudge(DetectorJudge):
    """Answers as `DetectorJudge`, after a moment."""

    def answer(self, *asked: Any) -> list[list[float | None]]:
        time.sleep(0.1)
        return super().answer(*asked)
