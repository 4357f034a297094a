from __future__ import annotations

import pytest

from project.shapes.scenes import BACKGROUNDS, COLOURS, JITTER, SHAPES, SIZES, Layout, Object, Placed

JITTERS = range(-JITTER, JITTER + 1)


@pytest.fixture(scope="session")
def every_object() -> list[Layout]:
    """Every object at every jitter on every background, alone in one of the cells in turn."""
    layouts = []
    for background in range(len(BACKGROUNDS)):
        for thing in [Object(colour=c, shape=k, size=z) for c in COLOURS for k in SHAPES for z in SIZES]:
            for dx, dy in [(dx, dy) for dx in JITTERS for dy in JITTERS]:
                cell = len(layouts) % 4
                placed = Placed(thing=thing, dx=dx, dy=dy)
                cells = [placed if c == cell else None for c in range(4)]
                layouts.append(Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=background))
    return layouts
