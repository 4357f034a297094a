"""The figures of project/rewards/README.md: how far two rewards can be trusted.

python -m pytest -m slow -s tests/rewards/test_reward_figures.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from project.data.prompts import read_prompts
from project.inference.pipeline import UnifiedPipeline
from project.judges.unified import UnifiedJudge
from project.models.bagel.source import BagelCheckpoint
from project.rewards.dvreward import DVReward
from project.rewards.ocr import OCRReward, edit_distance
from project.rewards.self_likelihood import SelfLikelihood
from project.shapes.grammar import DESCRIBE
from project.shapes.judge import DetectorJudge
from project.shapes.scenes import KINDS
from project.trajectory import Prompt, Trajectory
from tests.helpers import ROOT

pytestmark = pytest.mark.slow
UMM = "data/shapes/umm"
PROMPTS, SAMPLES = 24, 8
"""Of a kind, and of a prompt."""
TEXTS = (
    "Open Daily",
    "NO PARKING",
    "Fresh Bread 3.50",
    "Museum of Modern Art",
    "Exit 42B",
    "Happy Birthday Anna",
    "WARNING: High Voltage",
    "Caffè Roma",
    "speed limit 55",
    "The quick brown fox",
)
FONTS = ("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf")
LOOKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blurred": {"blur": 2},
    "noise": {"noise": 40},
    "letters of 16 pixels": {"size": 16},
    "turned by 12 degrees": {"turn": 12},
    "on two lines": {"lines": 2},
}
FAULTS: dict[str, Callable[[str], str]] = {
    "a letter left out": lambda text: text[:3] + text[4:],
    "a letter replaced": lambda text: text[:2] + ("y" if text[2] == "x" else "x") + text[3:],
    "two letters swapped": lambda text: text[0] + text[2] + text[1] + text[3:],
    "a word left out": lambda text: " ".join(text.split()[:-1]),
    "another text": lambda text: TEXTS[(TEXTS.index(text) + 3) % len(TEXTS)],
    "no text": lambda text: "",
}


def shown(make: Any, prompt: Prompt, picture: np.ndarray) -> Trajectory:
    made = make(prompt)
    image = dataclasses.replace(made.segments[-1], pixels_HWC=torch.from_numpy(picture.copy()))
    return dataclasses.replace(made, segments=(image,))


def within(reward_N: torch.Tensor) -> np.ndarray:
    reward_PG = reward_N.double().view(-1, SAMPLES)
    return (reward_PG - reward_PG.mean(1, keepdim=True)).flatten().numpy()


def test_correlation_with_the_exact_detector(trajectory: Any, pytestconfig: pytest.Config) -> None:
    """`--drawn-by runs/NAME/version_0/checkpoints/last.ckpt` scores the pictures of a trained policy instead."""
    every = [p for p in read_prompts(ROOT / "data/shapes/eval.jsonl") if p.columns["set"] == "direct"]
    prompts = [p for kind in KINDS for p in [q for q in every if q.columns["kind"] == kind][:PROMPTS]]
    asked = [prompt for prompt in prompts for _ in range(SAMPLES)]
    pipe = UnifiedPipeline.from_pretrained(pytestconfig.getoption("--drawn-by"))
    drawn: list[Trajectory] = []
    for start in range(0, len(asked), 96):
        some = asked[start : start + 96]
        generators = [torch.Generator().manual_seed(start + n) for n in range(len(some))]
        images = pipe([prompt.text for prompt in some], generator=generators).images
        drawn += [shown(trajectory, p, np.asarray(image)) for p, image in zip(some, images, strict=True)]
    source = BagelCheckpoint(UMM)
    rewards = DVReward(DetectorJudge()).score(drawn).reward_N
    exact = within(rewards)
    print(f"\nmean reward by the exact detector {rewards.mean():.3f}")
    measures = {
        "SelfLikelihood": SelfLikelihood(policy=source, instruction=DESCRIBE),
        "UnifiedJudge": DVReward(UnifiedJudge(source, template="plain", minimum_mass=0.0)),
    }
    kinds = np.array([prompt.columns["kind"] for prompt in asked])
    places = {"all": np.ones(len(kinds), dtype=bool), **{kind: kinds == kind for kind in KINDS}}
    print("| deviation |", " | ".join(f"{kind} {exact[some].std():.3f}" for kind, some in places.items()), "|")
    found: dict[str, dict[str, float]] = {}
    for name, reward in measures.items():
        scores = reward.score(drawn).reward_N
        own = within(scores)
        print(f"mean {name} {scores.mean():.3f}")
        found[name] = {kind: float(np.corrcoef(own[some], exact[some])[0, 1]) for kind, some in places.items()}
        print("|", name, "|", " | ".join(f"{kind} {value:.2f}" for kind, value in found[name].items()), "|")
    assert found["SelfLikelihood"]["all"] > found["UnifiedJudge"]["all"] > 0.2
    # Pictures of single shapes are right but for a few: there is little to correlate with.
    assert all(value > 0.4 for kind, value in found["SelfLikelihood"].items() if kind != "single")


def sign(text: str, font: str, size: int = 40, blur: int = 0, noise: int = 0, turn: int = 0, lines: int = 1) -> Any:
    """A picture of 512 x 512 pixels with this text, in letters small enough for it to fit."""
    words = text.split()
    if lines == 2 and len(words) > 1:
        text = " ".join(words[: len(words) // 2]) + "\n" + " ".join(words[len(words) // 2 :])
    paper = (230, 220, 200)
    canvas = Image.new("RGB", (512, 512), paper)
    draw = ImageDraw.Draw(canvas)
    file = Path(matplotlib.get_data_path()) / "fonts/ttf" / font
    while True:
        letters = ImageFont.truetype(str(file), size)
        _, _, width, _ = draw.multiline_textbbox((0, 0), text, font=letters)
        if width <= 480:
            break
        size -= 2
    draw.multiline_text(((512 - width) // 2, 220), text, font=letters, fill=(30, 30, 90))
    canvas = canvas.rotate(turn, fillcolor=paper).filter(ImageFilter.GaussianBlur(blur))
    grain = np.random.default_rng(0).normal(0, noise, (512, 512, 3))
    return np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8)


def test_text_that_is_read(trajectory: Any) -> None:
    pytest.importorskip("rapidocr", reason="pip install 'alphagrpo[ocr]'")
    reward = OCRReward()
    reward.preflight()

    def mean(shown_text: Callable[[str], str] = str, **look: Any) -> float:
        prompts = {text: Prompt(id=text, text=f'a sign that says "{text}"') for text in TEXTS}
        samples = [shown(trajectory, prompts[t], sign(shown_text(t), f, **look)) for t in TEXTS for f in FONTS]
        return reward.score(samples).reward_N.mean().item()

    right = {name: mean(**look) for name, look in LOOKS.items()}
    print("|", " | ".join(f"{name} {value:.3f}" for name, value in right.items()), "|")
    assert min(right.values()) > 0.95
    for name, fault in FAULTS.items():
        measured, exact = mean(fault), np.mean([without_errors(text, fault(text)) for text in TEXTS])
        print(f"| {name} | {measured:.3f} | {exact:.3f} |")
        assert abs(measured - exact) < 0.03


def without_errors(wanted: str, drawn: str) -> float:
    one, two = ("".join(text.split()).casefold() for text in (wanted, drawn))
    return max(0.0, 1 - edit_distance(one, two) / len(one))
