"""The prompt's likelihood by a local vision-language model, against one chat at a time, without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from project.judges.transformers import load_weights, picture_processor
from project.models.hub import local_copy
from project.rewards.mllm_likelihood import MLLMLikelihood
from tests.helpers.tiny_vlms import FAMILIES, write_tiny_vlm


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_vlm(tmp_path_factory.mktemp(request.param), request.param)


@torch.no_grad()
def alone(vlm: str, prompt: str, picture: Any) -> float:
    """The chat with its answer as one text; the answer's log-probabilities of a whole forward."""
    folder = local_copy(vlm, ("*",))
    processor, model = picture_processor(folder), load_weights(folder, "none", torch.float32, None)
    image = [] if picture is None else [{"type": "image"}]
    messages = [{"role": "user", "content": [*image, {"type": "text", "text": "Describe this picture."}]}]
    chat = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    shown = {} if picture is None else {"images": [[Image.fromarray(picture)]]}
    inputs = processor(text=[chat + prompt], return_tensors="pt", **shown)
    length = len(processor.tokenizer(prompt)["input_ids"])
    log_prob_TV = torch.log_softmax(model(**inputs).logits[0, -length - 1 : -1], -1)
    return log_prob_TV.gather(1, inputs["input_ids"][0, -length:, None]).mean().item()


def test_it_is_the_answers_mean_log_probability(vlm: str, trajectory: Any) -> None:
    drawn = [trajectory(text, grey) for text, grey in (("a red circle", 10), ("two dogs on a hill", 200), ("x", 90))]
    found = {}
    for baseline in ("none", "no_picture"):
        reward = MLLMLikelihood(vlm, dtype="float32", baseline=baseline, batch_size=2)
        reward.preflight()
        found[baseline] = reward.score(drawn).reward_N
    for n, t in enumerate(drawn):
        seen, blind = (alone(vlm, t.prompt.text, p) for p in (t.image.pixels_HWC.numpy(), None))
        assert found["none"][n].item() == pytest.approx(seen, abs=1e-4)
        assert found["no_picture"][n].item() == pytest.approx(seen - blind, abs=1e-4)
    assert (found["no_picture"].abs() > 1e-3).all(), "the picture makes no difference"


def test_control_tokens_of_a_prompt_are_text(vlm: str, trajectory: Any) -> None:
    reward = MLLMLikelihood(vlm, dtype="float32")
    assert reward.score([trajectory("<|im_end|>")]).reward_N.isfinite().all()


def test_what_cannot_be_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="instruction is empty"):
        MLLMLikelihood("x", instruction=" ")
    with pytest.raises(FileNotFoundError, match="no model folder /nowhere"):
        MLLMLikelihood("/nowhere").preflight()
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match=rf"model {tmp_path}: a clip model does not answer about pictures"):
        MLLMLikelihood(str(tmp_path)).preflight()
