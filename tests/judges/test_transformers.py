"""A local vision-language model as the judge: tiny Qwen2.5-VL and Qwen3-VL with random weights, from their files."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2Config, Qwen2ForCausalLM

from project.judges.templates import TEMPLATE_VERSION, judge_text
from project.judges.transformers import LocalModel, TransformersJudge, load
from project.trajectory import Question
from tests.helpers import tiny_vlms

SIZES = [(64, 64), (96, 64), (64, 160), (32, 32), (64, 64)]
QUESTIONS = ["is it red ?", "is there a very small circle somewhere in the picture ?", "a ?"]
# A batch against one by one. int8 splits off outlying columns by what the whole batch holds, so it differs most.
TOLERANCES = {"none": 2e-6, "8bit": 0.03, "4bit": 5e-3}


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]


def asked(*numbers: int) -> list[list[Question]]:
    return [[Question(text=text) for text in QUESTIONS[:number]] for number in numbers]


def judge_of(folder: str, quantization: Any = "none", **arguments: Any) -> TransformersJudge:
    return TransformersJudge(folder, quantization, dtype="float32", **{"minimum_mass": 0.0, **arguments})


@pytest.mark.parametrize("quantization", TOLERANCES)
def test_a_batch_of_different_sizes_equals_one_by_one(vlm: str, quantization: str) -> None:
    judge = judge_of(vlm, quantization)
    assert judge.preflight() is None
    questions, prompts = asked(3, 1, 0, 2, 3), ["a red circle", "", "x", "two rings and a star", "a red circle"]
    together = judge.answer(pictures(), questions, prompts)
    assert [len(row) for row in together] == [3, 1, 0, 2, 3]
    judge.batch_size = 1
    alone = judge.answer(pictures(), questions, prompts)
    flat, expected = (np.array([c for row in answers for c in row]) for answers in (together, alone))
    np.testing.assert_allclose(flat, expected, atol=TOLERANCES[quantization], rtol=0)
    assert np.ptp(flat) > 3 * TOLERANCES[quantization], "the answers hardly differ: the comparison tells nothing"
    judge.batch_size = 4
    np.testing.assert_allclose(
        [c for row in judge.answer(pictures(), questions, prompts) for c in row],
        flat,
        atol=TOLERANCES[quantization],
        rtol=0,
    )


def test_a_control_token_in_a_prompt_is_text(vlm: str) -> None:
    judge, question = judge_of(vlm, show_request=True), [[Question(text=QUESTIONS[0])]]
    written, parted, other = (
        judge.answer(pictures()[:1], question, [prompt])
        for prompt in ("a circle<|vision_start|>", "a circle< |vision_start|>", "a circle")
    )
    assert written == parted != other
    judge.show_request = False
    blind = [judge.answer(pictures()[:1], question, [prompt]) for prompt in ("a circle<|vision_start|>", "")]
    assert blind[0] == blind[1] != other, "the request is not shown"


def test_confidence_is_that_of_the_first_token(vlm: str) -> None:
    """The chat written by hand, one picture, no padding, and a softmax over the whole vocabulary."""
    judge = judge_of(vlm, show_request=True)
    picture, prompt, question = pictures()[1], "a red circle", QUESTIONS[0]
    ((confidence,),) = judge.answer([picture], [[Question(text=question)]], [prompt])

    assert judge._loaded is not None
    seen = judge._loaded.processor.image_processor(images=[Image.fromarray(picture)], return_tensors="pt")
    patch = judge._loaded.processor.image_processor.patch_size
    _, rows, columns = seen["image_grid_thw"][0].tolist()
    assert (rows, columns) == (2 * round(96 / 2 / patch), 2 * round(64 / 2 / patch))
    pads = "<|image_pad|>" * (rows * columns // 4)
    text = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{judge_text(question, prompt)}<|im_end|>\n"
    tokenizer = tiny_vlms.byte_tokenizer()
    ids = torch.tensor([tokenizer(f"{text}<|im_start|>assistant\n")["input_ids"]])
    model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=torch.float32)
    shown = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=shown, **seen).logits
    mass = {word: logits[0, -1].softmax(-1)[index].item() for word, index in tokenizer.get_vocab().items()}
    yes = sum(mass[word] for word in ("Yes", "yes", "ĠYes", "Ġyes"))
    no = sum(mass[word] for word in ("No", "no", "ĠNo", "Ġno"))
    assert confidence == pytest.approx(yes / (yes + no), abs=1e-6)
    assert confidence != pytest.approx(mass["Yes"] / (mass["Yes"] + mass["No"]), abs=1e-3), "one spelling is not all"
    judge.minimum_mass = 0.99
    with pytest.raises(ValueError, match="neither yes nor no is probable as the first word"):
        judge.preflight()
    judge.minimum_mass = (yes + no) * 1.01
    assert judge.answer([picture], [[Question(text=question)]], [prompt]) == [[None]]
    judge.minimum_mass = (yes + no) * 0.99
    assert judge.answer([picture], [[Question(text=question)]], [prompt]) == [[confidence]]


def test_4bit_is_the_model_with_dequantized_weights(vlm: str) -> None:
    """The same numbers as an fp32 model that holds what is left of each weight after rounding to nf4."""
    plain = judge_of(vlm)
    before = confidences_of(plain)
    answers = confidences_of(judge_of(vlm, "4bit"))
    # Before its first forward: that packs the weights as the processor at hand likes them.
    layers = dict(load(vlm, "4bit", torch.float32, None).model.named_modules())
    replaced = 0
    for name, module in plain._loaded.model.named_modules():
        if isinstance(layers[name], bitsandbytes.nn.Linear4bit):
            weight = layers[name].weight
            module.weight.data = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()
            replaced += 1
    assert replaced > 20
    # Packed 4-bit products on a CPU are those of bfloat16.
    np.testing.assert_allclose(answers, confidences_of(plain), atol=0.02)
    assert np.abs(np.subtract(answers, before)).max() > 0.05, "nothing was rounded"


def test_8bit_stays_near_the_full_precision(vlm: str) -> None:
    quantized, plain = judge_of(vlm, "8bit"), judge_of(vlm)
    answers, expected = confidences_of(quantized), confidences_of(plain)
    kinds = [type(module) for module in quantized._loaded.model.modules()]
    assert kinds.count(bitsandbytes.nn.Linear8bitLt) > 20
    assert 1e-5 < np.abs(np.subtract(answers, expected)).mean() < 0.05


def confidences_of(judge: TransformersJudge) -> list[float]:
    answers = judge.answer(pictures(), asked(3, 3, 3, 3, 3), ["a red circle"] * 5)
    return [confidence for row in answers for confidence in row]


@pytest.mark.parametrize("batch_size", [2, 16])
def test_questions_that_share_a_picture_get_the_same_answers(vlm: str, batch_size: int) -> None:
    sharing, alone = judge_of(vlm, batch_size=batch_size), judge_of(vlm, share_pictures=False)
    questions, prompts = asked(3, 1, 0, 2, 3), ["a red circle", "", "x", "two rings and a star", "a red circle"]
    answers, expected = (judge.answer(pictures(), questions, prompts) for judge in (sharing, alone))
    assert sharing._loaded.share and not alone._loaded.share
    assert [len(row) for row in answers] == [3, 1, 0, 2, 3]
    for row, other in zip(answers, expected, strict=True):
        assert row == pytest.approx(other, abs=2e-6)
    assert sharing.name == alone.name


def test_the_picture_is_read_once(vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = judge_of(vlm)
    judge.preflight()
    tokens: list[int] = []
    model = judge._loaded.model
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: tokens.append(inputs["input_ids"].numel()) or forward(**inputs)
    )
    judge.answer(pictures()[:1], asked(3), ["a red circle"])
    start, ends = tokens
    tokens.clear()
    judge.batch_size = 1
    judge.answer(pictures()[:1], asked(3), ["a red circle"])
    assert len(tokens) == 3 and start < min(tokens)
    assert start + ends < 0.6 * sum(tokens)


@pytest.mark.parametrize("fault", ["refuses", "confused"])
def test_a_model_that_cannot_share_is_asked_one_by_one(
    vlm: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise AttributeError("no cache to repeat")

    def confused(self: LocalModel, image: Any, chats: Any) -> Any:
        return self.one_by_one([255 - image] * len(chats), [chat.replace("grey", "") for chat in chats][::-1])

    expected = judge_of(vlm, share_pictures=False).answer(pictures()[:1], asked(3), ["a red circle"])
    monkeypatch.setattr(LocalModel, "about_one_picture", refuse if fault == "refuses" else confused)
    judge = judge_of(vlm)
    with caplog.at_level(logging.INFO, "project.judges.transformers"):
        answers = judge.answer(pictures()[:1], asked(3), ["a red circle"])
    assert not judge._loaded.share
    assert answers == [pytest.approx(expected[0], abs=1e-9)]
    assert "one by one" in caplog.text


def test_loading_leaves_the_randomness_of_the_run_alone(vlm: str) -> None:
    before = torch.random.get_rng_state()
    judge_of(vlm).preflight()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_its_name_tells_what_the_answers_depend_on() -> None:
    names = {
        TransformersJudge("a").name,
        TransformersJudge("b").name,
        TransformersJudge("a", "4bit").name,
        TransformersJudge("a", dtype="float32").name,
        TransformersJudge("a", minimum_mass=0.0).name,
        TransformersJudge("a", show_request=True).name,
    }
    assert len(names) == 6 and all(f"template-{TEMPLATE_VERSION}" in name for name in names)
    assert TransformersJudge("a", batch_size=3).name in names


def test_what_is_no_judge_is_refused_by_name(vlm: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="judge folder runs/no_such"):
        TransformersJudge("runs/no_such").preflight()
    with pytest.raises(ValueError, match="batch_size=0"):
        TransformersJudge("a", batch_size=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no model that transformers knows"):
        judge_of(str(tmp_path / "empty")).preflight()
    text_model = Qwen2Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
    )
    Qwen2ForCausalLM(text_model).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="qwen2 model does not answer about pictures"):
        judge_of(str(tmp_path / "text")).preflight()
    shutil.copytree(vlm, tmp_path / "base")
    (tmp_path / "base/chat_template.json").unlink()
    with pytest.raises(ValueError, match="base: has no chat template"):
        judge_of(str(tmp_path / "base")).preflight()
    shutil.copytree(vlm, tmp_path / "mute")
    tokenizer = json.loads((tmp_path / "mute/tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["merges"] = []
    tokenizer["model"]["vocab"] = {f"{word}!!x" if len(word) > 1 else word: i for word, i in words.items()}
    (tmp_path / "mute/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=r"mute: the vocabulary of .* no token for yes and no no"):
        judge_of(str(tmp_path / "mute")).preflight()
