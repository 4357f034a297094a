"""`BeforeAfter`: the same prompts before and after training, and `Opening`: what a run says before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from project.callbacks.before_after import BeforeAfter, Drawn, chosen, draw, load
from project.callbacks.checkpoint import SaveLast
from project.callbacks.opening import Opening, count, lines
from project.trajectory import Prompt
from tests.helpers import toys


class Judged(toys.LengthBenchmark):
    """Finds the pictures of short prompts right."""

    right = "short"

    def measure(self, trajectories: Any, rewards: Any) -> list[dict[str, Any]]:
        measured = super().measure(trajectories, rewards)
        return [{**row, "short": len(t.prompt.text) == 1} for row, t in zip(measured, trajectories, strict=True)]


def test_a_picture_of_what_was_drawn_before_and_after(fit: Any, tmp_path: Path) -> None:
    fit(Judged(), BeforeAfter(), updates=6, num_sanity_val_steps=-1, limit_val_batches=1)
    before = load(tmp_path / "before_after.pt")
    assert [(drawn.prompt, drawn.reasoning, drawn.right) for drawn in before.values()] == [
        ("a", "red circle", True),
        ("bb", "red circle", False),
    ]
    assert all(drawn.pixels_HWC.shape == (8, 8, 3) for drawn in before.values())
    assert Image.open(tmp_path / "before_after.png").size[0] > 400


def test_a_run_that_goes_on_compares_with_what_was_before_the_first_update(fit: Any, tmp_path: Path) -> None:
    fit(toys.LengthBenchmark(), BeforeAfter(), SaveLast(), updates=2, num_sanity_val_steps=-1)
    first = (tmp_path / "before_after.pt").read_bytes()
    assert not (tmp_path / "before_after.png").exists()
    ckpt = tmp_path / "checkpoints/last.ckpt"
    fit(toys.LengthBenchmark(), BeforeAfter(), updates=6, ckpt_path=ckpt, num_sanity_val_steps=-1)
    assert (tmp_path / "before_after.png").is_file() and (tmp_path / "before_after.pt").read_bytes() == first


def test_without_a_complete_evaluation_before_there_is_no_picture(fit: Any, tmp_path: Path) -> None:
    fit(toys.LengthBenchmark(), BeforeAfter(), num_sanity_val_steps=1)
    assert not list(tmp_path.glob("before_after*"))


def test_prompts_are_chosen_evenly_over_the_sets() -> None:
    def prompt(name: str, n: int, text: str) -> Prompt:
        return Prompt(id=f"{name}{n}", text=text, columns={"set": name})

    prompts = [prompt(name, n, f"{name} {n}") for name in "abc" for n in range(10)]
    assert chosen(prompts, 7) == ["a1", "a5", "a8", "b2", "b7", "c2", "c7"]
    # The same words are shown once, and a set has no more than it has.
    few = [prompt("a", n, "again") for n in range(5)] + [prompt("b", n, f"b {n}") for n in range(2)]
    assert chosen(few, 6) == ["a0", "b0", "b1"]
    with pytest.raises(ValueError, match="number = 0"):
        BeforeAfter(number=0)


def test_pixels_stay_sharp_and_frames_tell_right_from_wrong(tmp_path: Path) -> None:
    checks_HWC = np.indices((4, 4)).sum(0) % 2 * np.full((3, 1, 1), 255)
    pixels_HWC = np.moveaxis(checks_HWC, 0, 2).astype(np.uint8)
    before = Drawn(prompt="$x", reasoning="<think> a $y " + "long " * 90, pixels_HWC=pixels_HWC, right=False)
    after = Drawn(prompt="$x", reasoning="", pixels_HWC=pixels_HWC, right=True)
    picture_HWC = draw([(before, after)], 3, tmp_path / "p.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png").convert("RGB")), picture_HWC)
    values, counts = np.unique(picture_HWC.reshape(-1, 3), axis=0, return_counts=True)
    often = {tuple(value.tolist()) for value, number in zip(values, counts, strict=True) if number > 1000}
    assert {(0, 0, 0), (255, 255, 255), (0x1B, 0x9E, 0x77), (0xD9, 0x5F, 0x02)} <= often


def test_what_a_run_says(fit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        trainer = fit(Opening(), toys.Length(weight=0.5), toys.LengthBenchmark())
    said = [
        "trains:   1 of 1 parameters of Tiny: net 1",
        "rewards:  Length x 0.5",
        "data:     12 prompts, 2 an update; 2 to evaluate on (length)",
        f"writes:   {tmp_path}",
        f"watch:    tensorboard --logdir {tmp_path}",
    ]
    assert "\n".join(said) in caplog.messages
    trainer.lightning_module.requires_grad_(False)
    assert lines(trainer, trainer.lightning_module, tmp_path)["trains"] == (
        "0 of 1 parameters of Tiny: nothing; frozen: net 1"
    )
    assert [count(n) for n in (12, 1500, 2_784_000, 7e9)] == ["12", "1.5 k", "2.78 M", "7 G"]
