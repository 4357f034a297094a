"""Pictures that a model drew itself, read back: what it learns to reflect on.

Mistakes made up by a program teach a model to notice those, not its own: it finds its own pictures plausible. So it
draws, for seen compositions, the detector reads what became of them, and reflections are learned on these pictures.
Pictures that the detector cannot read clearly are left out: no true reflection on them is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from tqdm import tqdm

from project.core.atomic_files import atomic_file
from project.models.base import ModelSource, UnifiedModel
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.shapes.detector import detect
from project.shapes.grammar import describe
from project.shapes.renderer import render
from project.shapes.scenes import BACKGROUNDS, CELL_SIZE, JITTER, KINDS, Kind, Layout, Placed, Scene
from project.shapes.split import Split, sample_scene_of
from project.tasks.base import EvaluationTask, Rollout
from project.trajectory import Prompt, SampleKey

RIGHT_RATE = 0.4
"""Share of right pictures among those that are reflected on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPicture:
    """A picture drawn for a scene, and what it shows."""

    scene: Scene
    pixels: np.ndarray
    """uint8 [64, 64, 3]."""
    layout: Layout

    @property
    def right(self) -> bool:
        return self.scene.satisfied_by(self.layout)


class Pool:
    """Pictures to reflect on. Raises ValueError if none of them is right, or none wrong."""

    def __init__(self, pictures: Sequence[OwnPicture]) -> None:
        self.right = [picture for picture in pictures if picture.right]
        self.wrong = [picture for picture in pictures if not picture.right]
        if not self.right or not self.wrong:
            raise ValueError(
                f"{len(self.right)} right and {len(self.wrong)} wrong pictures: reflection is learned on both, "
                "let the model draw more of them"
            )

    def __len__(self) -> int:
        return len(self.right) + len(self.wrong)

    def sample(self, rng: np.random.Generator) -> OwnPicture:
        """A right picture with probability `RIGHT_RATE`, else a wrong one; all of these equally likely."""
        pictures = self.right if rng.random() < RIGHT_RATE else self.wrong
        return pictures[rng.integers(len(pictures))]


class OwnPictures:
    """Has a model draw a pool of pictures, part by part; finished parts are kept in a folder and not drawn again.

    Args:
        policy: the model that draws.
        task: how it reasons and draws.
        schedule: flow times of the ODE that it draws by.
        parts: of the pool.
        part_size: pictures of a part, drawn together.
        kinds: how often each kind of scene comes (relative); even if None.
        splits: of the compositions, evenly; those that pre-training shows if None.
    """

    def __init__(
        self,
        policy: ModelSource,
        task: EvaluationTask,
        schedule: Schedule,
        parts: int = 50,
        part_size: int = 128,
        kinds: dict[str, float] | None = None,
        splits: list[Split] | None = None,
    ) -> None:
        unknown = sorted(set(kinds or {}) - set(KINDS))
        if unknown:
            raise ValueError(f"kinds: unknown kind {unknown[0]!r}, choose of {', '.join(KINDS)}")
        if parts < 1 or part_size < 1:
            raise ValueError(f"parts = {parts} of part_size = {part_size} pictures: give at least 1 of each")
        self.policy = policy
        self.task = task
        self.schedule = schedule
        self.parts = parts
        self.part_size = part_size
        rates = np.array([(kinds or {}).get(kind, 0.0 if kinds else 1.0) for kind in KINDS])
        self.shares = rates / rates.sum()
        self.splits: list[Split] = splits or ["seen"]

    def draw(self, folder: Path, seed: int) -> None:
        """Draw the parts that the folder lacks."""
        missing = [part for part in range(self.parts) if not _file(folder, part).is_file()]
        if not missing:
            return
        folder.mkdir(parents=True, exist_ok=True)
        model = self.policy.load().eval()
        for part in tqdm(missing, desc="own pictures", unit="part"):
            scenes, pixels = self._part(model, seed, part)
            _write(_file(folder, part), scenes, pixels)

    def read(self, folder: Path) -> Pool:
        """The pool that was drawn. Raises ValueError naming a part that cannot be read, or as `Pool` does."""
        pictures: list[OwnPicture] = []
        for part in range(self.parts):
            pictures += _read(_file(folder, part))
        pool = Pool(pictures)
        unclear = self.parts * self.part_size - len(pool)
        rank_zero_info(
            f"own pictures: {len(pool.right)} right, {len(pool.wrong)} wrong; {unclear} unclear ones left out"
        )
        return pool

    def _part(self, model: UnifiedModel, seed: int, part: int) -> tuple[list[Scene], np.ndarray]:
        rng = np.random.default_rng((seed, part))
        kinds: list[Kind] = [KINDS[k] for k in rng.choice(len(KINDS), size=self.part_size, p=self.shares)]
        splits = [self.splits[n] for n in rng.integers(len(self.splits), size=self.part_size)]
        scenes = [sample_scene_of(rng, kind, split) for kind, split in zip(kinds, splits, strict=True)]
        prompts = [Prompt(id=f"own-{part}-{n}", text=describe(scene)) for n, scene in enumerate(scenes)]
        keys = [SampleKey(seed=seed, update=0, prompt=prompt.id) for prompt in prompts]
        drawn, *_ = self.task.rollout(
            Rollout(
                model=model,
                prompts=prompts,
                keys=keys,
                sampler=Sampler(schedule=self.schedule),
                training=False,
            )
        )
        return scenes, np.stack([trajectory.image.pixels_HWC.cpu().numpy() for trajectory in drawn.trajectories])


def own_pictures(scenes: Sequence[Scene], pixels: np.ndarray) -> list[OwnPicture]:
    """What the detector reads in pictures uint8 [N, 64, 64, 3]; those that it cannot read clearly are left out."""
    return [
        OwnPicture(scene=scene, pixels=picture, layout=locate(picture, layout))
        for scene, picture, layout in zip(scenes, pixels, detect(pixels).layouts(), strict=True)
        if layout is not None
    ]


def locate(pixels: np.ndarray, layout: Layout) -> Layout:
    """`layout` with the background and the jitters whose rendering comes nearest to the picture (least squares)."""
    edge_3 = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean(0)
    background = int(((edge_3 - np.array(BACKGROUNDS)) ** 2).sum(-1).argmin())
    jitters = range(-JITTER, JITTER + 1)
    cells: list[Placed | None] = list(layout.cells)
    for cell, placed in enumerate(layout.cells):
        if placed is None:
            continue
        place = (slice(cell // 2 * CELL_SIZE, (cell // 2 + 1) * CELL_SIZE),
                 slice(cell % 2 * CELL_SIZE, (cell % 2 + 1) * CELL_SIZE))  # fmt: skip
        moved = [replace(placed, dx=dx, dy=dy) for dx in jitters for dy in jitters]
        rendered = [render(_alone(cell, one, background))[place].astype(float) for one in moved]
        cells[cell] = moved[int(np.argmin([((one - pixels[place]) ** 2).sum() for one in rendered]))]
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=background)


def _alone(cell: int, placed: Placed, background: int) -> Layout:
    cells = [placed if n == cell else None for n in range(4)]
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=background)


def _file(folder: Path, part: int) -> Path:
    return folder / f"{part:04d}.npz"


def _write(file: Path, scenes: Sequence[Scene], pixels: np.ndarray) -> None:
    with atomic_file(file) as stream:
        np.savez_compressed(stream, pixels=pixels, scenes=json.dumps([scene.to_dict() for scene in scenes]))


def _read(file: Path) -> list[OwnPicture]:
    try:
        with np.load(file) as stored:
            pixels, rows = stored["pixels"], json.loads(str(stored["scenes"]))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file} cannot be read ({error}): delete it, and it is drawn again") from None
    return own_pictures([Scene.from_dict(row) for row in rows], pixels)
