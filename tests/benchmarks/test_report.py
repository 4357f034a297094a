"""`python -m project report`: scored pictures of several runs beside each other and beside published figures."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from project.__main__ import main
from project.benchmarks import tiif
from project.benchmarks.comparison import JudgedRun, differences, flattened, overall, read_runs
from project.benchmarks.comparison_report import ABSENT, compare_folders, table
from project.benchmarks.geneval.items import item_of
from project.benchmarks.geneval.summary import PictureRow, score
from project.core.images import read_picture
from project.core.statistics import paired_bootstrap
from tests.helpers.picture_worlds import (
    METADATA,
    TIIFWorld,
    geneval,
    write_dpg_world,
    write_geneval,
    write_tiif_world,
)
from tests.helpers.score_runs import results, save, write_rows

PROMPTS = "evaluation_metadata.jsonl of GenEval"
TAGS = {"single_object": 40, "colors": 25, "position": 10}
"""Number of items of each tag in runs that are made up."""


def made_up(folder: Path, rights: dict[str, list[bool]], **manifest: Any) -> JudgedRun:
    """The folder of a GenEval run: for each item whether its pictures are right; an item is "TAG/NUMBER"."""
    items = [item_of({"tag": n.partition("/")[0], "prompt": n, "include": METADATA[0]["include"]}, n) for n in rights]
    rows = [
        PictureRow(item=item, sample=n, tag=item.partition("/")[0], correct=right)
        for item, pictures in rights.items()
        for n, right in enumerate(pictures)
    ]
    scores = score(rows, items, "official", max(map(len, rights.values())))
    figures = {"overall": scores.overall, "tag": {tag: share and share.value for tag, share in scores.tags.items()}}
    made = {"items_sha256": "ab12" * 16, "items_version": PROMPTS, "label": "geneval-hf", "samples": 4}
    made |= {"items": len(rights), "asked": len(rights)}
    content = {
        "benchmark": "geneval",
        "mode": "official",
        "overall": scores.overall,
        "headlines": {"official": scores.overall, "strict": scores.overall},
        "official": figures,
        "strict": figures,
        "coverage": {"strict": {"expected": len(rows), "scored": len(rows), "missing": [], "dropped": []}},
        "manifest": made | manifest,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    verdicts = [
        {
            "id": row.item,
            "sample": row.sample,
            "worth": float(row.correct),
            "counted": {"right": row.correct, "asked": 1, "groups": [row.tag], "weight": 1, "unit": row.item},
        }
        for row in rows
    ]
    write_rows(folder / "verdicts.jsonl", verdicts)
    return read_runs([folder])["geneval"][0]


def change(folder: Path, **changes: Any) -> None:
    """Changes the results of a run; a dict changes keys within one."""
    content = results(folder)
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and key in content else value
    (folder / "results.json").write_text(json.dumps(content))


def random_rights(seed: int, chance: float, samples: int = 4) -> dict[str, list[bool]]:
    rng = np.random.default_rng(seed)
    hard = {f"{tag}/{n}": rng.random() for tag, number in TAGS.items() for n in range(number)}
    return {name: (rng.random(samples) < chance * level).tolist() for name, level in hard.items()}


def cells(text: str, name: str) -> list[str]:
    """Of the first row of a table that begins with a name."""
    (row, *_) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


# --------------------------------------------------------------------------- runs of `score`


@pytest.fixture
def world(tmp_path: Path) -> TIIFWorld:
    """TIIF-Bench with the scores of two models: `a`, and `b` with wrong pictures of long descriptions."""
    made = write_tiif_world(tmp_path)
    assert made.run("a") == 0
    names = list(made.drawn)
    for name in names[1::2]:
        save(made.drawn[names[(names.index(name) + 3) % len(names)]].picture, made.file(name))
    assert made.run("b") == 0
    return made


def test_two_models_by_hand(world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    folders = [str(world.folder / name) for name in "ab"]
    assert main(["report", *folders, "--out", str(world.folder / "out")]) == 0
    text = capsys.readouterr().out
    assert text == (world.folder / "out/report.md").read_text() + f"\nreport: {world.folder / 'out/report.md'}\n"
    a, b = (results(world.folder / name) for name in "ab")
    assert cells(text, "one overall figure") == [f"{run['overall']:.4f}" for run in (a, b)]
    assert cells(text, "type/text/long") == [f"{run['official']['type']['text']['long']:.4f}" for run in (a, b)]
    assert "No run has a value for 90 figures: group/Real World/short" in text and "type/style/long" not in text
    # Short descriptions are the same pictures.
    assert cells(text, "b: short")[2] == "+0.0000 [+0.0000, +0.0000]"
    first, other, gap = cells(text, "b: long")
    assert [first, other] == [f"{run['official']['overall']['long']:.4f}" for run in (a, b)]
    assert gap.startswith(f"{b['official']['overall']['long'] - a['official']['overall']['long']:+.4f} [+")
    assert "b: 12 items that both runs have verdicts on. The difference is that of the overall figure." in text
    assert "Not comparable" not in text
    assert cells(text, "judge") == ["shapes-detector"] * 2 and cells(text, "coverage") == ["12 of 12"] * 2
    for n, name in enumerate("ab", start=1):
        assert f"![good and bad pictures of {name}](tiif_{n}.png)" in text
        assert (world.folder / f"out/tiif_{n}.png").read_bytes() == (world.folder / name / "sheet.png").read_bytes()
    assert "![good and bad pictures](sheet.png)" in (world.folder / "a/report.md").read_text()
    assert read_picture(world.folder / "a/sheet.png").shape[0] > 4 * 192


def test_verdicts_give_back_the_overall_figures(world: TIIFWorld, tmp_path: Path) -> None:
    (tmp_path / "dpg").mkdir()
    assert write_dpg_world(tmp_path / "dpg").run("grids", "out") == 0
    found = read_runs([world.folder / "a", world.folder / "b", tmp_path / "dpg/out"])
    for run in (*found["tiif"], *found["dpg"]):
        assert run.verdicts is not None
        # Two types of TIIF-Bench are no whole: strict mode gives no overall figure, and official ones are rounded.
        mode, places = ("official", 1e-4) if run.benchmark == "tiif" else ("strict", 1e-12)
        assert overall(run.verdicts) == pytest.approx(run.headline(mode), abs=places)
    (made,) = found["dpg"]
    between = differences(made, made)
    assert between is not None and between.of == "strict", "DPG-Bench's official figure drops the first question"


def test_a_question_answered_with_an_expected_no_is_right(tmp_path: Path) -> None:
    world = write_tiif_world(tmp_path)
    assert world.run("a") == 0
    items = tiif.read_items(*(world.folder / f"data/testmini_{kind}" for kind in ("prompts", "eval_prompts")))
    rows = [json.loads(line) for line in (world.folder / "a/verdicts.jsonl").read_text().splitlines()]
    for item, row in zip(items, rows, strict=True):
        right = [said == wanted for said, wanted in zip(world.drawn[item.id].truth, item.expected, strict=True)]
        assert (row["id"], row["worth"]) == (item.id, pytest.approx(np.mean(right)))
        assert [not told.endswith("(wrong)") for told in row["told"]] == right
    assert any("no" in item.expected for item in items)


def test_a_run_with_missing_pictures_is_compared_on_what_both_have(
    world: TIIFWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.file("text/1/long").unlink()
    assert world.run("part", "--allow-missing") == 0
    capsys.readouterr()
    assert main(["report", str(world.folder / "a"), str(world.folder / "part")]) == 0
    text = capsys.readouterr().out
    assert "part: 1 of 12 are not scored (text/1/long). Its figures are not those of the whole benchmark." in text
    assert "Not comparable: part and a lack other items." in text
    assert "part: 11 items that both runs have verdicts on." in text
    assert cells(text, "part: overall")[0] != cells(text, "one overall figure")[0]


def test_runs_with_a_limit_or_other_prompts(world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("first", "--limit", "4") == 0
    file = world.folder / "data/testmini_prompts/text_prompts.jsonl"
    file.write_text(file.read_text().replace("a ", "one ", 1))
    assert world.run("other") == 0
    capsys.readouterr()
    assert main(["report", *(str(world.folder / name) for name in ("b", "first", "other"))]) == 0
    text = capsys.readouterr().out
    assert "Not comparable: first and b differ (asked is 4, not 12)." in text
    assert "first: only 4 of 12 items were asked for." in text
    assert "first: 4 items that both runs have verdicts on." in text
    digests = [results(world.folder / name)["manifest"]["items_sha256"][:12] for name in ("other", "b")]
    assert f"Not comparable: other and b differ (items_sha256 is {digests[0]}..., not {digests[1]}...)." in text
    assert "other: no difference to b, since these differ: items_sha256." in text and "| other: " not in text


def test_a_folder_with_several_benchmarks(world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    for name, run in (("old", "a"), ("new", "b")):
        shutil.copytree(world.folder / run, world.folder / name / "tiif")
        (world.folder / name / "made").mkdir()
        assert write_dpg_world(world.folder / name / "made").run("grids", "../dpg") == 0
    # A training run leaves a file of that name too.
    (world.folder / "new/trained").mkdir()
    (world.folder / "new/trained/results.json").write_text('{"before": {}, "after": {}}')
    capsys.readouterr()
    assert main(["report", str(world.folder / "old"), str(world.folder / "new")]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# dpg", "# tiif"]
    assert cells(text, "new: overall")[2] == "+0.0000 [+0.0000, +0.0000]", "the same DPG run"
    assert cells(text.split("# tiif")[1], "new: long")[2].startswith("+0.3")


def test_one_run_alone(world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report", str(world.folder / "a"), "--mode", "strict"]) == 0
    text = capsys.readouterr().out
    assert "## Differences" not in text and "Figures of strict mode" in text
    # Types without any picture have no figure in strict mode, and so the whole has none.
    assert "overall/short" in text.split("No run has a value for")[1]
    assert len(cells(text, "type/text/short")) == 1


def test_geneval_with_detections_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_geneval(tmp_path)
    cup = [{"class": "cup", "box": [1, 1, 9, 9], "score": 0.9}]
    for name, most in (("a", 3), ("b", 2)):
        found = [{"picture": f"{n:05d}/{m}", "detections": cup if m < most else []} for n in range(3) for m in range(4)]
        write_rows(tmp_path / f"{name}.jsonl", found)
        made = {"file": str(tmp_path / f"{name}.jsonl"), "detector": "mmdet mask2former"}
        detector = json.dumps({"class_path": "project.benchmarks.DetectionsFile", "init_args": made})
        parts = ["--detector", detector, "--colors", "tests.helpers.tiny_geneval.RedColors"]
        assert geneval(tmp_path, name, *parts) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    # Of `colors` the red cup is right wherever one is found, the blue one never.
    assert cells(text, "overall") == [f"{(3 / 4 + 3 / 8) / 2:.4f}", f"{(2 / 4 + 2 / 8) / 2:.4f}"]
    assert cells(text, "b: single_object") == ["0.7500", "0.5000", "-0.2500 [-0.2500, -0.2500]"]
    # Two prompts of `colors`: drawn twice the blue one, no difference; drawn twice the red one, 1/4.
    assert cells(text, "b: colors") == ["0.3750", "0.2500", "-0.1250 [-0.2500, +0.0000]"]
    assert "Not comparable" not in text, "detections are those of the pictures, and differ as these do"


# --------------------------------------------------------------------------- the interval


def test_the_interval_is_that_of_a_slow_independent_computation(tmp_path: Path) -> None:
    before, after = random_rights(0, 0.7), random_rights(0, 0.9)
    a, b = made_up(tmp_path / "a", before), made_up(tmp_path / "b", after)
    found = differences(a, b)
    assert found is not None and found.of == "official" and found.items == sum(TAGS.values())

    chance = random.Random(1)
    drawn = []
    for _ in range(1500):
        figures = []
        names = [chance.choice([n for n in before if n.startswith(f"{t}/")]) for t, k in TAGS.items() for _ in range(k)]
        for rights in (before, after):
            by_tag = {tag: [r for n in names if n.startswith(f"{tag}/") for r in rights[n]] for tag in TAGS}
            figures.append(sum(sum(r) / len(r) for r in by_tag.values()) / len(TAGS))
        drawn.append(figures[1] - figures[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    whole, *tags = found.lines
    assert whole.mean == pytest.approx(b.headline("official") - a.headline("official"), abs=1e-12)  # type: ignore[operator]
    assert (whole.low, whole.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))
    assert high - low > 0.06 and [line.name for line in tags] == list(TAGS)
    for line in tags:
        assert line.other == pytest.approx(b.figures("official")[f"tag/{line.name}"])


def test_it_is_the_bootstrap_of_this_project_where_that_one_applies(tmp_path: Path) -> None:
    before, after = random_rights(2, 0.5), random_rights(3, 0.9)
    found = differences(made_up(tmp_path / "a", before), made_up(tmp_path / "b", after))
    names = sorted(before)
    shares = [[[np.mean(rights[name]) for name in names]] for rights in (before, after)]
    # Strata are numbered in the order of their names there, and of their first item here: the same.
    wanted = paired_bootstrap(*shares, [name.partition("/")[0] for name in names])
    assert found is not None
    assert (found.lines[0].mean, found.lines[0].low, found.lines[0].high) == pytest.approx(
        (wanted.mean / 100, wanted.low / 100, wanted.high / 100), abs=1e-6
    )


def test_pictures_of_one_item_are_drawn_together(tmp_path: Path) -> None:
    # One item all right, one all wrong: with pictures drawn one by one the interval would be narrower than 0 to 1.
    a = made_up(tmp_path / "a", {f"colors/{n}": [False] * 4 for n in range(2)})
    b = made_up(tmp_path / "b", {"colors/0": [True] * 4, "colors/1": [False] * 4})
    found = differences(a, b)
    assert found is not None and len(found.lines) == 1
    assert (found.lines[0].mean, found.lines[0].low, found.lines[0].high) == (0.5, 0.0, 1.0)


def test_pictures_in_unequal_numbers_weigh_as_in_the_benchmark(tmp_path: Path) -> None:
    a = made_up(tmp_path / "a", {"colors/0": [True], "colors/1": [False] * 3, "position/0": [True]})
    assert a.verdicts is not None
    assert overall(a.verdicts) == a.headline("official") == (1 / 4 + 1) / 2


def test_a_figure_that_verdicts_do_not_give_back(tmp_path: Path) -> None:
    a = made_up(tmp_path / "a", {"colors/0": [True], "colors/1": [False], "position/0": [True]})
    change(tmp_path / "a", headlines={"official": 0.3, "strict": None})
    (a,) = read_runs([tmp_path / "a"])["geneval"]
    found = differences(a, made_up(tmp_path / "b", {"colors/0": [True], "colors/1": [True], "position/0": [True]}))
    assert found is not None and found.of is None
    assert (found.lines[0].name, found.lines[0].first, found.lines[0].other) == ("mean worth", pytest.approx(2 / 3), 1)
    text = compare_folders([tmp_path / "a", tmp_path / "b"]).text
    assert "that of the mean worth of the pictures, because the verdicts do not give back the overall figure" in text


def test_weights_of_innermost_groups(tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"colors/0": [True], "position/0": [False]})
    rows = [json.loads(line) for line in (tmp_path / "a/verdicts.jsonl").read_text().splitlines()]
    rows[0]["counted"] |= {"groups": ["x", "y"], "weight": 0.9}
    rows[1]["counted"] |= {"groups": ["x", "z"], "weight": 0.3}
    third = {**rows[1], "id": "c", "counted": {"right": 2, "asked": 4, "groups": ["w"], "weight": 1, "unit": "c"}}
    write_rows(tmp_path / "a/verdicts.jsonl", [*rows, third])
    (run,) = read_runs([tmp_path / "a"])["geneval"]
    assert run.verdicts is not None
    assert overall(run.verdicts) == pytest.approx((0.9 / 1.2 + 0.5) / 2)
    assert overall([]) is None


# --------------------------------------------------------------------------- published figures


ENTRY = {"benchmark": "geneval", "setting": "as | they are", "source": "a paper", "certainty": "read"}


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    entries = [
        ENTRY | {"version": PROMPTS, "figures": {"same": {"overall": 0.5, "tag/absent": 0.5}}},
        ENTRY | {"version": "evaluation_metadata_long.jsonl of BAGEL", "figures": {"longer": {"overall": 0.5}}},
        ENTRY | {"figures": {"unsaid": {"overall": 0.5}}},
        ENTRY | {"version": PROMPTS, "gain_over": "same", "figures": {"gain": {"overall": 0.5}}},
        ENTRY | {"benchmark": "tiif", "figures": {"elsewhere": {"overall": 0.5}}},
    ]
    file = tmp_path / "numbers.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def published(folders: Sequence[Path], numbers: Path) -> list[list[str]]:
    """The table's rows: model, figure, published, the differences, setting, certainty, source."""
    text = compare_folders(folders, numbers=numbers).text.split("## Published figures")[1].split("##")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in row] for row in rows]


def test_published_figures_of_the_same_prompts(tmp_path: Path, numbers: Path) -> None:
    made_up(tmp_path / "a", {"colors/0": [True, True], "position/0": [True, False]})
    made_up(tmp_path / "b", {"colors/0": [True, True], "position/0": [True, False]}, items_version=None)
    told = ["as \\| they are", "read", "a paper"]
    assert published([tmp_path / "a", tmp_path / "b"], numbers) == [
        ["same", "overall", "0.5000", "+0.2500", ABSENT, *told],
        ["same", "tag/absent", "0.5000", ABSENT, ABSENT, *told],
        ["longer", "overall", "0.5000", ABSENT, ABSENT, *told],
        ["unsaid", "overall", "0.5000", ABSENT, ABSENT, *told],
        ["gain", "overall (gain over same)", "+0.5000", ABSENT, ABSENT, *told],
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": {"asked": 1}},
        {"coverage": {"strict": {"expected": 5, "scored": 4, "missing": ["colors/9/0"]}}},
        {"official": {"overall": float("nan")}},
        {"official": {"overall": None}},
    ],
)
def test_a_run_that_is_not_whole_is_not_compared(tmp_path: Path, numbers: Path, changes: dict[str, Any]) -> None:
    made_up(tmp_path / "a", {"colors/0": [True, True], "position/0": [True, False]})
    change(tmp_path / "a", **changes)
    assert {row[3] for row in published([tmp_path / "a"], numbers)} == {ABSENT}


def test_published_figures_of_editions_and_languages(tmp_path: Path) -> None:
    for name, edition in (("a", "legacy"), ("b", "verified"), ("c", None)):
        made_up(
            tmp_path / name, {"colors/0": [True], "position/0": [True]}, edition=edition, items_version="as published"
        )
        change(tmp_path / name, benchmark="wise")
    change(tmp_path / "c", official={"en": {"overall": 0.25}})
    entries = [
        ENTRY | {"benchmark": name, "version": "as published", "figures": {"model": {"overall": 0.5}}}
        for name in ("wise_legacy", "wise_verified", "wise_en", "wise_cn", "wiser_legacy")
    ]
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump(entries))
    found = published([tmp_path / name for name in "abc"], tmp_path / "numbers.yaml")
    assert [row[1:6] for row in found] == [
        ["wise_legacy: overall", "0.5000", "+0.5000", ABSENT, ABSENT],
        ["wise_verified: overall", "0.5000", ABSENT, "+0.5000", ABSENT],
        ["wise_en: overall", "0.5000", ABSENT, ABSENT, "-0.2500"],
    ]


def test_nothing_published(tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"colors/0": [True]})
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump([ENTRY | {"benchmark": "x", "figures": {"m": {"n": 1}}}]))
    assert (
        "There are none of this benchmark." in compare_folders([tmp_path / "a"], numbers=tmp_path / "numbers.yaml").text
    )


def test_the_published_file_names_prompts_that_runs_may_have() -> None:
    from project.benchmarks.geneval.items import PUBLISHED
    from project.benchmarks.reference_numbers import reference_numbers
    from project.benchmarks.versions import PUBLISHED as OTHERS

    known = {"geneval": set(PUBLISHED.values()), **{name: set(files.values()) for name, files in OTHERS.items()}}
    named = [numbers for numbers in reference_numbers() if numbers.version is not None]
    assert {"geneval", "tiif", "wise_verified"} <= {numbers.benchmark for numbers in named}
    for numbers in named:
        assert numbers.version in known[numbers.benchmark], numbers


# --------------------------------------------------------------------------- oracles, names, files


def test_an_oracle_is_named_wherever_its_figures_stand(tmp_path: Path) -> None:
    rights = {"colors/0": [True, True], "position/0": [True, False]}
    made_up(tmp_path / "a", rights)
    made_up(tmp_path / "b", rights, drawing={"rounds": 2, "gate": "oracle"})
    text = compare_folders([tmp_path / "a", tmp_path / "b"]).text
    assert text.count("b (oracle)") > 6
    assert not re.search(r"(?<![/\w])b\b(?! \(oracle\))", text), "no figure of it without that word"
    assert "Not comparable: an oracle chose pictures of one of a and b (oracle)." in text
    assert cells(text, "drawing/gate") == [ABSENT, "oracle"]
    change(tmp_path / "a", rounds={"1": {"gate": "oracle", "overall": 0.875, "tag": {"colors": 1.0}}})
    text = compare_folders([tmp_path / "a"]).text
    assert cells(text, "rounds/1/overall (oracle)") == ["0.8750"]
    assert cells(text, "rounds/1/tag/colors (oracle)") == ["1.0000"]
    assert "(oracle)" not in text.split("## Published")[1]


def test_flattened() -> None:
    assert flattened({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b/c": 2, "b/d/e": 3}


def test_other_judges_and_drawings(tmp_path: Path) -> None:
    rights = {"colors/0": [True, True], "position/0": [True, False]}
    made_up(tmp_path / "a", rights, judge="one", guidance=4.0, seeds=[0, 1])
    made_up(tmp_path / "b", rights, judge="two", guidance=4.0)
    made_up(tmp_path / "c", rights, judge="one", guidance=1.0)
    text = compare_folders([tmp_path / name for name in "abc"]).text
    assert "Not comparable: b and a differ (judge is two, not one)." in text
    assert "b: no difference to a, since these differ: judge." in text
    assert "c and a differ" not in text and "| c: overall" in text
    assert cells(text, "guidance") == ["4.0", "4.0", "1.0"] and cells(text, "seeds") == ["[0, 1]", ABSENT, ABSENT]


def test_values_that_are_not_there(tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"colors/0": [True]})
    change(tmp_path / "a", official={"overall": None, "tag": {"colors": float("nan")}, "note": "text", "flag": True})
    change(tmp_path / "a", headlines={"official": float("nan"), "strict": None})
    text = compare_folders([tmp_path / "a"]).text
    assert "No run has a value for 2 figures: overall, tag/colors." in text
    assert "nan" not in text and "note" not in text and "flag" not in text


def test_runs_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("x/out", "y/out", "z")]
    for folder in folders[:2]:
        made_up(folder, {"colors/0": [True]})
    for inner in ("guided", "plain/deep"):
        made_up(folders[2] / inner, {"colors/0": [True]})
    assert [run.name for run in read_runs(folders[:1])["geneval"]] == ["out"]
    assert [run.name for run in read_runs(folders[:2])["geneval"]] == ["x/out", "y/out"]
    assert [run.name for run in read_runs(folders[2:])["geneval"]] == ["guided", "deep"]
    assert len({run.name for run in read_runs(folders)["geneval"]}) == 4


def test_folders_without_verdicts_or_sheet(tmp_path: Path) -> None:
    for name in "ab":
        made_up(tmp_path / name, {"colors/0": [True]})
    (tmp_path / "b/verdicts.jsonl").unlink()
    report = compare_folders([tmp_path / "a", tmp_path / "b"])
    assert "b: no difference to a, since b lacks verdicts.jsonl: give its `score` command again" in report.text
    assert f"a: {tmp_path / 'a'} has no sheet.png" in report.text and report.pictures == {}
    write_rows(tmp_path / "b/verdicts.jsonl", [])
    assert "since no item is in both" in compare_folders([tmp_path / "a", tmp_path / "b"]).text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "results.json:1: not valid JSON"),
        ("[]", "results.json: holds a list, not an object"),
        ('{"benchmark": "x", "manifest": {}}', "results.json: lacks 'coverage', or holds something else there"),
        (
            '{"benchmark": "x", "manifest": {}, "coverage": {}, "official": {}, "strict": {}}',
            "results.json: 'coverage' does not say what is missing",
        ),
        ('{"before": {}, "after": {}}', "holds no results.json of a benchmark of pictures"),
    ],
)
def test_results_of_another_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "results.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a"}, r"verdicts.jsonl:2: is no verdict \(KeyError\('counted'\)\)"),
        ({"id": "a", "worth": "x", "counted": {}}, r"verdicts.jsonl:2: is no verdict"),
        (
            {
                "id": "a",
                "worth": float("nan"),
                "counted": {"right": 1, "asked": 1, "groups": [], "weight": 1, "unit": "a"},
            },
            r"verdicts.jsonl:2: has a worth or points that are no numbers",
        ),
        (
            {"id": "a", "worth": 1, "counted": {"right": 1, "asked": 0, "groups": [], "weight": 1, "unit": "a"}},
            r"verdicts.jsonl:2: has a worth or points that are no numbers, or asks for nothing",
        ),
    ],
)
def test_verdicts_of_another_form(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    made_up(tmp_path / "a", {"colors/0": [True]})
    lines = (tmp_path / "a/verdicts.jsonl").read_text()
    (tmp_path / "a/verdicts.jsonl").write_text(lines + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        read_runs([tmp_path / "a"])


def test_folders_that_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(tmp_path / "a", {"colors/0": [True]})
    (tmp_path / "empty").mkdir()
    for folders, message in (
        (["nowhere"], "nowhere is no folder: give one that `python -m project score --out` made"),
        ([str(tmp_path / "empty")], "empty holds no results.json of a benchmark of pictures"),
        ([str(tmp_path / "a"), str(tmp_path / "a")], "a is given twice: leave one out"),
        ([str(tmp_path / "a"), str(tmp_path)], "a is given twice: leave one out"),
    ):
        assert main(["report", *folders]) == 1
        assert message in capsys.readouterr().err


def test_a_table() -> None:
    assert table(["", "a", "text"], [["x | y", "1.25", "two\nlines"]], texts=1) == [
        "|        |    a | text      |",
        "| ------ | ---: | --------- |",
        "| x \\| y | 1.25 | two lines |",
    ]
