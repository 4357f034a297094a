"""The audit of a judge: its figures by hand, its probes, and the command as a user runs it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main
from project.judges.audit import Probe, ask, auc, by_tag, figures, read_probes, reliability, table
from project.judges.base import Judge
from project.trajectory import Question


class Scripted(Judge):
    """Answers by the level of the picture, and remembers what it was asked; gives up after some calls."""

    def __init__(self, patience: int = 10**6) -> None:
        self.patience = patience
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return "scripted"

    def preflight(self) -> None:
        pass

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        if self.patience == 0:
            raise RuntimeError("killed")
        self.patience -= 1
        self.asked += [question.text for asked in questions for question in asked]
        levels = [int(image[0, 0, 0]) for image in images]
        answers = [None if level == 255 else level / 250 for level in levels]
        return [[answer] * len(asked) for answer, asked in zip(answers, questions, strict=True)]


def probe(level: int, *, truth: bool, tag: str = "", text: str = "is it ?") -> Probe:
    image = np.full((2, 2, 3), level, dtype=np.uint8)
    return Probe(image=image, question=Question(text=text, tag=tag), truth=truth, prompt="p")


def test_figures_by_hand() -> None:
    found = figures([0.9, 0.7, 0.4, 0.6, 0.1, None], [True, True, True, False, False, True])
    assert found.probes == 6 and found.unanswered == pytest.approx(1 / 6)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.false_positive_rate == pytest.approx(1 / 2), "0.6 says yes where no is true"
    assert found.false_negative_rate == pytest.approx(1 / 3), "0.4 says no where yes is true; None says nothing"
    assert found.auc == pytest.approx(5 / 6), "of the pairs only (0.4, 0.6) is the wrong way round"
    # Every bin holds one probe.
    assert found.ece == pytest.approx((0.1 + 0.3 + 0.6 + 0.6 + 0.1) / 5)
    assert found.brier == pytest.approx((0.01 + 0.09 + 0.36 + 0.36 + 0.01) / 5)


def test_figures_of_extreme_judges() -> None:
    perfect = figures([1.0, 1.0, 0.0, 0.0], [True, True, False, False])
    assert (perfect.accuracy, perfect.auc, perfect.ece, perfect.brier) == (1.0, 1.0, 0.0, 0.0)
    flatterer = figures([1.0] * 4, [True, True, False, False])
    assert (flatterer.false_positive_rate, flatterer.false_negative_rate) == (1.0, 0.0)
    assert (flatterer.auc, flatterer.ece, flatterer.brier) == (0.5, 0.5, 0.5)
    mute = figures([None, None], [True, False])
    assert mute.unanswered == 1.0
    assert (mute.accuracy, mute.false_positive_rate, mute.auc, mute.ece, mute.brier) == (None,) * 5
    assert figures([0.9], [True]).false_positive_rate is None
    with pytest.raises(ValueError, match="at least one"):
        figures([], [])


def test_a_calibrated_judge_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence_N = rng.uniform(size=20_000)
    truth_N = rng.uniform(size=20_000) < confidence_N
    calibrated = figures(confidence_N.tolist(), truth_N.tolist())
    assert calibrated.ece < 0.015
    # E (c - t)^2 = E c (1 - c) = 1/6 for uniform c.
    assert calibrated.brier == pytest.approx(1 / 6, abs=0.005)
    squeezed = figures((0.5 + confidence_N / 2).tolist(), truth_N.tolist())
    assert squeezed.ece == pytest.approx(0.25, abs=0.015) and squeezed.auc == pytest.approx(calibrated.auc)


def test_reliability_counts_each_confidence_in_its_bin() -> None:
    bins = reliability([0.0, 0.1, 0.19, 1.0, None], [False, True, False, True, True])
    assert bins.count_B.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1], "1.0 belongs to the last bin"
    assert bins.confidence_B[1] == pytest.approx(0.145) and bins.truth_B[1] == 0.5
    assert math.isnan(bins.truth_B[5]) and bins.truth_B[9] == 1.0
    assert auc(np.array([0.5]), np.array([0.5])) == 0.5 and auc(np.array([]), np.array([0.5])) is None


def test_the_figures_are_split_by_tag() -> None:
    answers = [(probe(1, truth=True, tag="Count"), 0.9), (probe(2, truth=False, tag="Style"), 0.8)]
    found = by_tag([*answers, (probe(3, truth=True), None)])
    assert list(found) == ["all", "(no tag)", "Count", "Style"]
    assert found["all"].probes == 3 and found["Count"].accuracy == 1.0 and found["Style"].false_positive_rate == 1.0
    lines = table(found).splitlines()
    assert lines[0].split()[:3] == ["tag", "probes", "accuracy"] and len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["(no", "tag)", "1", "-", "-", "-", "-", "-", "-", "1.000"]


def test_an_interrupted_audit_asks_only_the_rest(tmp_path: Path) -> None:
    probes = [probe(25 * n, truth=n % 2 == 0, text=f"is it {n} ?") for n in range(10)]
    probes[1] = probe(255, truth=True, text="is it 1 ?")
    file = tmp_path / "new/answers.jsonl"
    first = Scripted(patience=2)
    got = []
    with pytest.raises(RuntimeError, match="killed"):
        for pair in ask(first, probes, file, batch_size=3):
            got.append(pair)
    assert len(got) == 6
    with file.open("a") as stream:
        stream.write('{"judge": "scripted", "probe": "torn')
    again = Scripted()
    answers = list(ask(again, probes, file, batch_size=3))
    assert again.asked == ["is it 1 ?", *(f"is it {n} ?" for n in range(6, 10))], "unanswered ones are asked again"
    confidence = {p.question.text: c for p, c in answers}
    assert len(answers) == 10 and confidence["is it 1 ?"] is None and confidence["is it 8 ?"] == pytest.approx(0.8)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(row["question"] for row in rows) == sorted(p.question.text for p in probes), "no row lost or doubled"
    other = Scripted()
    assert len(list(ask(other, probes[2:], file))) == 8 and other.asked == []


def test_another_judge_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = [probe(10, truth=True), probe(20, truth=True)]
    list(ask(Scripted(), probes, tmp_path / "a.jsonl"))
    judge = Scripted()
    monkeypatch.setattr(Scripted, "name", "another")
    list(ask(judge, probes, tmp_path / "a.jsonl"))
    assert len(judge.asked) == 2
    # The same picture with another question, prompt or size is another probe.
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    one, *others = (
        Probe(image=i, question=Question(text=text), truth=True, prompt=prompt)
        for i, text, prompt in (
            (image, "a ?", "p"),
            (image.reshape(4, 2, 3), "a ?", "p"),
            (image, "b ?", "p"),
            (image, "a ?", "q"),
            (image + 1, "a ?", "p"),
        )
    )
    assert one.id not in {other.id for other in others} and len({other.id for other in others}) == 4


def rows_file(tmp_path: Path, *rows: dict) -> Path:
    Image.fromarray(np.full((4, 6), 100, dtype=np.uint8)).save(tmp_path / "grey.png")
    file = tmp_path / "probes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


GOOD = {"image": "grey.png", "question": "is it grey ?", "answer": "yes", "tag": "Attribute", "prompt": "a grey wall"}


def test_probes_from_a_file(tmp_path: Path) -> None:
    one, two = read_probes(rows_file(tmp_path, GOOD, {**GOOD, "answer": False, "tag": None}))
    assert one.image.shape == (4, 6, 3) and one.image.dtype == np.uint8, "grey pictures become RGB"
    assert (one.question.text, one.question.tag, one.truth, one.prompt) == (
        "is it grey ?",
        "Attribute",
        True,
        "a grey wall",
    )
    assert two.truth is False and two.question.tag == ""


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": None}, r"probes.jsonl:2: lacks 'image'"),
        ({"image": "gone.png"}, r"probes.jsonl:2: there is no picture .*gone.png"),
        ({"question": " "}, r"probes.jsonl:2: lacks 'question'"),
        ({"answer": "maybe"}, r"probes.jsonl:2: 'answer' is 'maybe': give .*yes"),
        ({"answer": 1}, r"probes.jsonl:2: 'answer' is 1"),
        ({"prompt": ""}, r"probes.jsonl:2: 'prompt' is ''"),
    ],
)
def test_probes_that_cannot_be_used_are_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_probes(rows_file(tmp_path, GOOD, {**GOOD, **change}))


def test_the_command_on_the_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "--judge", "project.shapes.judge.DetectorJudge", "--out", str(tmp_path), "--number", "240"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["judge"] == "shapes-detector" and "shapes-detector" in printed
    assert set(results["by_tag"]) == {"Existence", "Attribute", "Count", "Spatial", "Geometry", "Coherence"}
    assert results["figures"]["probes"] == 240 and {of["probes"] for of in results["by_tag"].values()} == {40}
    for tag in ("Existence", "Attribute", "Count", "Spatial"):
        assert results["by_tag"][tag]["accuracy"] == 1.0, tag
    assert sum(b["probes"] for b in results["bins"]) == 240
    assert Image.open(tmp_path / "reliability.png").size[0] > 400
    # Again: everything is known, and says the same.
    assert main(command) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_the_command_on_the_embedded_model_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dotted judge within a judge; without yes and no of a tag its figures are left open."""
    file = rows_file(tmp_path, {**GOOD, "question": "is the background plain ?"})
    judge = ["--judge=project.judges.unified.UnifiedJudge", "--judge.template=plain"]
    policy = ["--judge.policy=project.models.bagel.source.BagelCheckpoint", "--judge.policy.directory=data/shapes/umm"]
    assert main(["audit", *judge, *policy, "--probes", str(file), "--out", str(tmp_path / "out")]) == 0
    assert "Attribute" in capsys.readouterr().out
    figures_ = json.loads((tmp_path / "out/results.json").read_text())["by_tag"]["Attribute"]
    assert figures_["probes"] == 1 and figures_["false_positive_rate"] is None and figures_["brier"] is not None


def test_a_judge_that_dies_costs_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = ["--judge", "tests.helpers.mortal_judge.MortalJudge", "--judge.calls"]
    command = ["audit", "--number", "12", "--batch-size", "5", "--out", str(tmp_path), *judge]
    assert main([*command, "2"]) == 1
    said = capsys.readouterr().err
    assert "start it again" in said and "10 of 12 answers are kept" in said and "Traceback" not in said
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 10
    assert main([*command, "1"]) == 0, "one batch is left"
    assert json.loads((tmp_path / "results.json").read_text())["figures"]["probes"] == 12


def test_probes_are_read_as_every_picture_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("LA", (6, 4), (0, 0)).save(tmp_path / "grey.png", exif=exif)
    rows = tmp_path / "probes.jsonl"
    rows.write_text(json.dumps(GOOD))
    (one,) = read_probes(rows)
    assert one.image.shape == (6, 4, 3) and (one.image == 255).all()


def own_probes(number: int, seed: int) -> list[Probe]:
    return [probe(number - seed, truth=True), probe(number, truth=False)]


def test_probes_of_a_function(tmp_path: Path) -> None:
    command = ["audit", "--judge", "tests.helpers.mortal_judge.MortalJudge", "--judge.calls=1", "--out", str(tmp_path)]
    assert main([*command, "--probes", f"{__name__}.own_probes", "--number", "9", "--seed", "3"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["figures"]["probes"], results["seed"]) == (2, 3)


@pytest.mark.parametrize(
    "arguments, message, code",
    [
        (["--judge=project.shapes.judge.NoJudge"], "NoJudge", 2),
        (["--judge=project.shapes.judge.DetectorJudge", "--number=5"], "give at least 12", 1),
        (["--judge=project.shapes.judge.DetectorJudge", "--batch-size=0"], "give at least 1", 1),
        (["--judge=project.shapes.judge.DetectorJudge", "--probes=gone.jsonl"], "no prompt file gone.jsonl", 1),
        (["--judge=project.shapes.judge.DetectorJudge", "--probes=shapes"], "no such function", 1),
        (["--judge=project.shapes.judge.DetectorJudge", "--probes=project.shapes.probes.gone"], "no such function", 1),
        (["--judge=project.shapes.judge.DetectorJudge", "--probes=project.shapes.probes.TAGS"], "is no function", 1),
        (["--judge=project.judges.transformers.TransformersJudge", "--judge.model=runs/none"], "runs/none", 1),
        (
            ["--judge=project.judges.transformers.TransformersJudge", "--judge.model=a", "--judge.batch_size=0"],
            "batch_size=0",
            1,
        ),
        (
            ["--judge=project.judges.transformers.TransformersJudge", "--judge.model=a", "--judge.quantization=5bit"],
            "5bit",
            2,
        ),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *arguments, "--out", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
