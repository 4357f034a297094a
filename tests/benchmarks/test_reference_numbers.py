"""Published figures: read, named as the scorers name theirs, and refused where an entry is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.benchmarks import dpg, gedit, imgedit, tiif, wise
from project.benchmarks.base import flatten
from project.benchmarks.reference_numbers import ReferenceNumbers, reference_numbers
from tests.helpers import ROOT

PUBLISHED = (ROOT / "../shared/benchmarks/tiif/published_testmini_results_25_models.json").resolve()
ENTRY = {
    "benchmark": "tiif",
    "setting": "testmini",
    "source": "a paper",
    "certainty": "read",
    "figures": {"a model": {"overall/short": 0.5}},
}


def names(figures: dict[str, Any]) -> set[str]:
    """Names of flattened figures, also of those that were not measured."""
    return {
        name
        for key, value in figures.items()
        for name in ({f"{key}/{inner}" for inner in names(value)} if isinstance(value, dict) else {key})
    }


def test_figures_have_the_names_of_the_scorers() -> None:
    items = [gedit.GEditItem(group=g, language="en", key="0", instruction="x", intersection=True) for g in gedit.GROUPS]
    types = {name: name for name in imgedit_types()}
    known = {
        "tiif": names(tiif.score([], [], "strict").figures()),
        "dpg": names(dpg.score([], [], "strict").figures()),
        "wise_legacy": names(wise.score_legacy([], "strict").figures()),
        "wise_verified": names(wise.score_verified([], "strict").figures()),
        "gedit_en": names(gedit.score(items, [], "en", "strict").figures()),
        "imgedit": names(imgedit.score(types, [], "strict").figures()),
    }
    for numbers in reference_numbers():
        assert set(numbers.figures) <= known.get(numbers.benchmark, {"overall"}), numbers
    assert flatten({"a": {"b": 1}}, "x") == {"x/a/b": 1.0}, "runs are named with the same slashes"


def imgedit_types() -> list[str]:
    figures = reference_numbers("imgedit")[0].figures
    return [name.removeprefix("type/") for name in figures if name != "overall"]


def test_every_figure_says_where_it_is_from() -> None:
    found = reference_numbers()
    assert {"geneval", "tiif", "dpg", "wise_legacy", "wise_verified", "gedit_en"} <= {n.benchmark for n in found}
    described = [(n.benchmark, n.model, n.setting, n.gain_over) for n in found]
    assert len(set(described)) == len(described), "two entries cannot be told apart"


def test_the_published_table_of_wise_is_the_weighted_mean_of_its_categories() -> None:
    figures = reference_numbers("wise_legacy")[0].figures
    weighted = sum(weight * figures[f"category/{name}"] for name, weight in wise.WEIGHTS["legacy"].items())
    assert weighted == pytest.approx(figures["overall"], abs=0.005)
    unweighted = sum(figures[f"category/{name}"] for name in wise.CATEGORIES) / 6
    assert unweighted == pytest.approx(figures["unweighted"], abs=0.005)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not there")
def test_the_table_of_tiif() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    found = [n for n in reference_numbers("tiif") if n.certainty == "recomputed"]
    assert len(found) == 2 * 25
    for numbers in found:
        table = published[numbers.setting.rpartition(" ")[2]]["groups"]["Overall average score of 9 sub-attributes"]
        wanted = table[numbers.model]
        assert numbers.figures == {"overall/short": wanted["short"], "overall/long": wanted["long"]}


def test_an_entry(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text(yaml.safe_dump([ENTRY | {"gain_over": "another", "version": "testmini"}]), encoding="utf-8")
    assert reference_numbers("tiif", file) == (
        ReferenceNumbers(
            benchmark="tiif",
            model="a model",
            figures={"overall/short": 0.5},
            setting="testmini",
            source="a paper",
            certainty="read",
            gain_over="another",
            version="testmini",
        ),
    )
    with pytest.raises(ValueError, match=r"has no figures of 'tif': did you mean 'tiif'\?"):
        reference_numbers("tif", file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sauce": "x"}, r"entry 1: unknown key 'sauce': did you mean 'source'\?"),
        ({"source": ""}, r"entry 1: 'source' is '', not a text"),
        ({"gain_over": None}, r"entry 1: 'gain_over' is None, not a text"),
        ({"version": 2}, r"entry 1: 'version' is 2, not a text"),
        ({"certainty": "sure"}, r"entry 1: certainty 'sure': choose of read, recomputed, rerun, secondhand"),
        ({"figures": {}}, r"entry 1: 'figures' is \{\}, not a mapping of models"),
        ({"figures": {"a": 0.5}}, r"entry 1: the figures of a are 0.5, not a mapping"),
        ({"figures": {"a": {"overall": "0,5"}}}, r"entry 1: 'overall' of a is '0,5', not a number"),
    ],
)
def test_bad_entries(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text(yaml.safe_dump([ENTRY | change]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        reference_numbers(file=file)


def test_no_list(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    for text, message in (("a: 1", "holds a dict, not a list"), ("- 3", "entry 1: is a int, not a mapping")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            reference_numbers(file=file)
