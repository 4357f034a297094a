"""CLIP score and PickScore on tiny checkpoints with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from project.core.metrics import values
from project.models.clip import prepare
from project.rewards.clip_score import CLIPScore
from project.rewards.pick_score import PickScore
from tests.helpers.tiny_geneval import write_tiny_clip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_it_is_what_the_whole_network_says(checkpoint: str, trajectory: Any) -> None:
    """`logits_per_image` of transformers is logit_scale * cos."""
    drawn = [trajectory(text, picture) for text, picture in (("a dog", 10), ("a red cat", 200), ("a dog", 120))]
    network, tokenizer = CLIPModel.from_pretrained(checkpoint), CLIPTokenizer.from_pretrained(checkpoint)
    expected = []
    for t in drawn:
        pixels = prepare(Image.fromarray(t.image.pixels_HWC.numpy()), 32)[None]
        with torch.no_grad():
            output = network(pixel_values=pixels, **tokenizer([t.prompt.text], return_tensors="pt"))
        expected.append(output.logits_per_image.item())
    for size in (1, 2, 32):
        reward = CLIPScore(checkpoint, batch_size=size)
        reward.preflight()
        torch.testing.assert_close(reward.score(drawn).reward_N, torch.tensor(expected), atol=1e-4, rtol=1e-4)
    cosine_N = CLIPScore(checkpoint, scale=1.0).score(drawn).reward_N
    assert cosine_N.abs().max() <= 1 and cosine_N.std() > 0
    assert CLIPScore(checkpoint).score([]).reward_N.shape == (0,)


def test_long_prompts_are_cut_and_counted(checkpoint: str, trajectory: Any) -> None:
    long = "a very long prompt " * 20
    output = CLIPScore(checkpoint).score([trajectory("short"), trajectory(long), trajectory(long + "with an end")])
    assert values(output.metrics)["reward/clip_score/cut"] == pytest.approx(2 / 3)
    assert output.reward_N[1] == output.reward_N[2]


def test_pick_score_takes_its_tokenizer_from_elsewhere(checkpoint: str, trajectory: Any, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(checkpoint) / name, tmp_path / name)
    drawn = [trajectory("a dog", 10)]
    reward = PickScore(str(tmp_path), tokenizer=checkpoint)
    output = reward.score(drawn)
    assert torch.equal(output.reward_N, CLIPScore(checkpoint).score(drawn).reward_N)
    assert "reward/pick_score" in values(output.metrics)
    with pytest.raises(ValueError, match="holds no tokenizer: name a folder or a hub id"):
        PickScore(str(tmp_path), tokenizer=None).preflight()


def test_what_is_no_clip_is_refused(checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no CLIP folder /nowhere"):
        CLIPScore("/nowhere").preflight()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ValueError, match="is a siglip model, not clip: take yuvalkirstain/PickScore_v1"):
        PickScore(str(tmp_path)).preflight()
    for arguments in ({"batch_size": 0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))}="):
            CLIPScore(checkpoint, **arguments)
