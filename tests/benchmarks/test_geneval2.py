"""GenEval2's prompts and soft-TIFA."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from project.benchmarks.geneval2 import (
    AtomPrompt,
    AtomQuestion,
    AtomScores,
    geometric_mean,
    read_prompts,
    score,
    spellings,
    table,
)
from tests.helpers import ROOT
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

DATA = (ROOT / "../shared/benchmarks/geneval2/geneval2_data.jsonl").resolve()
ROW = {
    "prompt": "two red dogs",
    "atom_count": 3,
    "vqa_list": [["How many dogs are in the image?", "two"], ["Are the dogs red?", "Yes"]],
    "skills": ["count", "attribute"],
}


def prompt(id: str, atoms: int, *skills: str) -> AtomPrompt:
    questions = tuple(AtomQuestion(text=f"is it {n} ?", answer="Yes", skill=skill) for n, skill in enumerate(skills))
    return AtomPrompt(id=id, prompt=f"prompt {id}", atom_count=atoms, questions=questions)


PROMPTS = [prompt("a", 3, "object", "count"), prompt("b", 4, "object", "verb"), prompt("c", 4, "count")]
SCORED = [AtomScores(prompt="a", scores=(0.9, 0.4)), AtomScores(prompt="b", scores=(1.0, 0.0))]


def test_official_figures(golden_geneval2_soft_tifa: Mapping[str, Any]) -> None:
    case = golden_geneval2_soft_tifa
    of_prompts = zip(case["atom_count"], case["skills"], strict=True)
    prompts = [prompt(f"{n}", atoms, *skills) for n, (atoms, skills) in enumerate(of_prompts)]
    rows = [AtomScores(prompt=f"{n}", scores=tuple(values)) for n, values in enumerate(case["score_lists"])]
    official, strict = score(rows, prompts, "official"), score(rows, prompts, "strict")
    expected = case["expected"]
    for figures in (official, strict):
        assert figures.gm is not None and 100 * figures.gm == pytest.approx(expected["soft_tifa_gm_x100"], rel=1e-12)
        assert figures.am is not None and 100 * figures.am == pytest.approx(expected["soft_tifa_am_x100"], rel=1e-12)
        skills = {skill: 100 * value for skill, value in figures.skills.items() if value is not None}
        assert skills == pytest.approx(expected["per_skill_am_x100"], rel=1e-12)
        atoms = {str(number): 100 * value for number, value in figures.atomicity.items() if value is not None}
        assert atoms == pytest.approx(expected["per_atomicity_gm_x100"], rel=1e-12)


def test_by_hand() -> None:
    assert geometric_mean([0.9, 0.4]) == pytest.approx(0.6)
    whole = score([*SCORED, AtomScores(prompt="c", scores=(0.5,))], PROMPTS, "strict")
    assert whole.gm == pytest.approx((0.6 + 0 + 0.5) / 3) and whole.am == pytest.approx((0.65 + 0.5 + 0.5) / 3)
    assert whole.skills == pytest.approx({"object": 0.95, "count": 0.45, "verb": 0.0})
    assert whole.atomicity == pytest.approx({3: 0.6, 4: 0.25})
    assert whole.coverage.complete


def test_strict_shrinks_no_denominator() -> None:
    """Prompt c has no scores: official takes the mean of the others, strict gives no figure that needs it."""
    official, strict = score(SCORED, PROMPTS, "official"), score(SCORED, PROMPTS, "strict")
    assert official.gm == pytest.approx(0.3) and official.am == pytest.approx(0.575)
    assert official.skills["count"] == pytest.approx(0.4) and official.atomicity[4] == 0
    assert strict.gm is None and strict.am is None
    assert strict.skills == {"object": pytest.approx(0.95), "count": None, "verb": 0.0}
    assert strict.atomicity == {3: pytest.approx(0.6), 4: None}
    assert official.coverage == strict.coverage and strict.coverage.missing == ("c",)
    assert "4 atoms (GM)           -" in table(strict) and "soft-TIFA GM       30.00" in table(official)
    assert score([], PROMPTS, "official").gm is None


def test_refused() -> None:
    for rows, message in (
        ([SCORED[0], SCORED[0]], "more than once: a"),
        ([AtomScores(prompt="z", scores=(1.0,))], "no items of this benchmark: z"),
        ([AtomScores(prompt="a", scores=(1.0,))], "prompt a has 2 questions and 1 scores"),
        ([AtomScores(prompt="a", scores=(1.0, 1.1))], "score 1.1 is no probability"),
        ([AtomScores(prompt="a", scores=(1.0, float("nan")))], "score nan is no probability"),
    ):
        with pytest.raises(ValueError, match=message):
            score(rows, PROMPTS, "strict")
    with pytest.raises(ValueError, match="more than once: b"):
        score([], [*PROMPTS, PROMPTS[1]], "official")


def test_spellings() -> None:
    assert spellings("Yes") == ("yes", "Yes")
    assert spellings("two") == ("two", "Two", "2")


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "geneval2_data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_become_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_prompts(write(tmp_path, ROW))
    count = AtomQuestion(text="How many dogs are in the image?", answer="two", skill="count")
    red = AtomQuestion(text="Are the dogs red?", answer="Yes", skill="attribute")
    assert found.prompts == (AtomPrompt(id="00000", prompt="two red dogs", atom_count=3, questions=(count, red)),)
    assert "09233adbc9f8" in caplog.text and found.sha256[:12] in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": " "}, "give prompt"),
        ({"atom_count": "3"}, "give prompt"),
        ({"vqa_list": []}, "give prompt"),
        ({"skills": ["count"]}, "2 questions and 1 skills"),
        ({"skills": ["count", ""]}, "of skill ''"),
        ({"vqa_list": [["How many dogs are in the image?", "two"], ["Are the dogs red?"]]}, "give [question, answer]"),
    ],
)
def test_what_is_no_prompt(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, ROW, ROW | change)
    with pytest.raises(ValueError) as caught:
        read_prompts(file)
    assert f"{file}:2: " in str(caught.value) and message in str(caught.value)


def test_no_file_and_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"github\.com/facebookresearch/GenEval2"):
        read_prompts(tmp_path / "geneval2_data.jsonl")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(write(tmp_path))


def test_the_published_prompts(caplog: pytest.LogCaptureFixture) -> None:
    if not DATA.is_file():
        pytest.skip(f"no {DATA}")
    with caplog.at_level(logging.WARNING):
        prompts = read_prompts(DATA).prompts
    assert not caplog.messages and len(prompts) == 800
    assert {p.atom_count for p in prompts} == set(range(3, 11))
    questions = [question for p in prompts for question in p.questions]
    assert {q.skill for q in questions} == {"object", "count", "attribute", "position", "verb"}
    assert all(len(spellings(q.answer)) == (3 if q.skill == "count" else 2) for q in questions)
