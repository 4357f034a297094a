"""The unified model as the judge: its own first token, whatever it is asked together with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from project.inference.pipeline import UnifiedPipeline
from project.judges.templates import judge_text
from project.judges.unified import UnifiedJudge
from project.models.bagel.source import BagelCheckpoint
from project.models.base import ModelSource
from project.shapes.examples import question
from project.shapes.scenes import KINDS
from project.shapes.split import sample_scene_of
from project.trajectory import Question

EMBEDDED = "data/shapes/umm"


@pytest.fixture(scope="module")
def examples() -> list[tuple[np.ndarray, str, bool]]:
    rng = np.random.default_rng(1)
    drawn = [question(rng, sample_scene_of(rng, KINDS[n % len(KINDS)], "seen")) for n in range(200)]
    return [(e.blocks[0].pixels, e.blocks[1].text, e.blocks[2].text == "yes") for e in drawn]


@pytest.fixture(scope="module")
def judge() -> UnifiedJudge:
    return UnifiedJudge(BagelCheckpoint(EMBEDDED), template="plain")


def test_it_says_what_it_would_write(judge: UnifiedJudge, examples: list[tuple[np.ndarray, str, bool]]) -> None:
    """Greedy answers of the pipeline are the confidences above 1/2; right more often than a coin."""
    assert judge.preflight() is None
    answers = judge.answer([e[0] for e in examples], [[Question(text=e[1])] for e in examples], [""] * len(examples))
    sure = [confidence > 0.5 for (confidence,) in answers]
    pipe = UnifiedPipeline.from_pretrained(EMBEDDED)
    written = pipe.ask([e[1] for e in examples], [Image.fromarray(e[0]) for e in examples])
    assert sure == [text == "yes" for text in written]
    assert np.mean([said == truth for said, (_, _, truth) in zip(sure, examples, strict=True)]) > 0.6


def test_a_batch_equals_one_by_one(judge: UnifiedJudge, examples: list[tuple[np.ndarray, str, bool]]) -> None:
    """Several questions a picture, pictures of different sizes, some without any question."""
    pictures = [np.asarray(Image.fromarray(e[0]).resize((64, 32 if n % 3 else 64))) for n, e in enumerate(examples[:9])]
    questions = [[Question(text=e[1]) for e in examples[n : n + n % 4]] for n in range(9)]
    whole = judge.answer(pictures, questions, [""] * 9)
    assert [len(row) for row in whole] == [n % 4 for n in range(9)]
    small = UnifiedJudge(judge.policy, template="plain", batch_size=2)
    single = UnifiedJudge(judge.policy, template="plain", batch_size=1)
    for other in (small, single):
        for row, expected in zip(other.answer(pictures, questions, [""] * 9), whole, strict=True):
            assert row == pytest.approx(expected, abs=1e-5)
    given = [confidence for row in whole for confidence in row]
    assert np.ptp(given) > 0.1


class Reference(ModelSource):
    """The reference checkpoint, whose vocabulary of bytes gets two words for the judge's eyes."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def load(self) -> Any:
        model = BagelCheckpoint(self.directory).load()
        model.defaults = dataclasses.replace(model.defaults, vae_sides=(140, 28, 14), vit_sides=(140, 28, 14))
        model.tokenizer.get_vocab = lambda: {"Yes": 70, "Ġyes": 171, "No": 30}
        return model


def test_confidence_is_that_of_upstreams_logits(bagel_fixture: Any) -> None:
    tensor = bagel_fixture.tensor
    picture = tensor("understanding.in.image_u8").numpy()
    judge = UnifiedJudge(Reference(str(bagel_fixture.directory)), template="plain", minimum_mass=0.0)
    model = judge._loaded()
    ids = tensor("understanding.in.question_ids").long()
    model.encode_text = lambda text: {"the question": ids}[text]
    ((confidence,),) = judge.answer([picture], [[Question(text="the question")]], [""])
    probability = tensor("understanding.out.next_token_logits").flatten().double().softmax(-1)
    yes, no = probability[[70, 171]].sum().item(), probability[30].item()
    assert confidence == pytest.approx(yes / (yes + no), abs=1e-4)
    judge.minimum_mass = 2 * (yes + no)
    assert judge.answer([picture], [[Question(text="the question")]], [""]) == [[None]]


def test_a_vocabulary_without_the_words_is_refused(bagel_fixture: Any) -> None:
    judge = UnifiedJudge(BagelCheckpoint(str(bagel_fixture.directory)))
    with pytest.raises(ValueError, match=r"BagelCheckpoint.*no token for yes and no no"):
        judge.preflight()


def test_the_template_is_what_it_reads(judge: UnifiedJudge) -> None:
    told = UnifiedJudge(judge.policy, template="judge")
    read: list[str] = []
    model = told._loaded()
    encode = model.encode_text
    model.encode_text = lambda text: read.append(text) or encode(text)
    told.answer([np.full((64, 64, 3), 200, dtype=np.uint8)], [[Question(text="is it red ?")]], ["a red circle"])
    assert read == [judge_text("is it red ?")]
    told.show_request = True
    told.answer([np.full((64, 64, 3), 200, dtype=np.uint8)], [[Question(text="is it red ?")]], ["a red circle"])
    assert read[1:] == [judge_text("is it red ?", "a red circle")]
    names = {judge.name, told.name, UnifiedJudge(judge.policy).name}
    assert len(names) == 3 and all("data/shapes/umm" in name for name in names)
    with pytest.raises(ValueError, match="set template to judge"):
        UnifiedJudge(judge.policy, template="plain", show_request=True)
    with pytest.raises(ValueError, match="minimum_mass=2"):
        UnifiedJudge(judge.policy, minimum_mass=2)


def test_the_copy_is_frozen_and_randomness_untouched(judge: UnifiedJudge) -> None:
    before = torch.random.get_rng_state()
    fresh = UnifiedJudge(judge.policy)
    fresh.preflight()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in fresh._loaded().parameters())
