"""Items of another version of a benchmark are noticed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from project.benchmarks import gedit, tiif, versions, wise
from project.benchmarks.versions import item_digest, item_version
from tests.helpers import ROOT

DATA = (ROOT / "../shared/benchmarks").resolve()
there = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
ITEMS = [
    wise.WISEItem(id=number, prompt="x", explanation="x", category="culture", subcategory="Art") for number in (1, 2)
]


def test_the_digest_is_of_words_alone() -> None:
    assert item_digest(ITEMS) == item_digest(ITEMS[::-1])
    assert item_digest(ITEMS) != item_digest([dataclasses.replace(ITEMS[0], prompt="y"), ITEMS[1]])
    edit = gedit.GEditItem(group="text_change", language="en", key="a", instruction="x", intersection=True)
    assert item_digest([edit]) == item_digest([dataclasses.replace(edit, source=Path("a.png"))])


@there
def test_published_versions(caplog: pytest.LogCaptureFixture) -> None:
    testmini = tiif.read_items(DATA / "tiif/testmini_prompts", DATA / "tiif/testmini_eval_prompts")
    assert item_version("tiif", testmini) == "testmini, both lengths"
    assert item_version("wise_legacy", wise.read_items(DATA / "wise/legacy", "legacy")) == "as published"
    assert item_version("wise_legacy", wise.read_items(DATA / "wise/legacy", "legacy", rewritten=True)) == "rewritten"
    hints = wise.read_items(DATA / "wise/bagel_final_data_with_hint.json", "legacy")
    assert item_version("wise_legacy", hints) == "as published, with BAGEL's hints"
    for name in ("verified", "verified/merge.json"):
        assert item_version("wise_verified", wise.read_items(DATA / "wise" / name, "verified")) == "as published"
    assert item_version("gedit", gedit.read_items(DATA / "gedit/gedit_edit_uniworld.json")) == "UniWorld's English file"
    assert not caplog.records


def test_another_version_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert item_version("wise_verified", ITEMS) is None
    (record,) = caplog.records
    digest = next(iter(versions.PUBLISHED["wise_verified"]))
    assert item_digest(ITEMS)[:12] in record.getMessage() and f"{digest[:12]} (as published)" in record.getMessage()


def test_a_benchmark_that_nobody_has_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    assert item_version("dpg", ITEMS) is None and not caplog.records
