"""Published figures of the benchmarks, each with its source, its setting and how sure it is.

They are in `reference_numbers.yaml`, a list of entries with the keys

  benchmark: name of the benchmark, e.g. tiif, wise_legacy, gedit_en
  setting: what one must know to compare: prompts, judge, size, guidance
  source: where the figures stand
  certainty: see `Certainty`
  version: what the file of prompts is called in `versions.py` or `geneval/items.py`, if the source says which one it
    was (optional): only figures of the same prompts can be compared
  gain_over: if the figures are differences, the model that they are differences to (optional)
  figures: model -> figure -> value; a figure has the name and scale of the scorer of this project
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from project.core.nearest import nearest

Certainty = Literal["read", "recomputed", "rerun", "secondhand"]
"""`read`: in the source itself, by the authors. `recomputed`: by the official formula, of the authors' raw answers.
`rerun`: somebody else ran it and reports it. `secondhand`: in a summary of the source."""
FILE = Path(__file__).with_suffix(".yaml")
KEYS = ("benchmark", "setting", "source", "certainty", "figures")
OPTIONAL = ("gain_over", "version")


@dataclass(frozen=True, kw_only=True)
class ReferenceNumbers:
    """What a source says of one model on one benchmark.

    Args:
        benchmark: Name of the benchmark.
        model: Name of the model, and what was done with it.
        figures: Figure, as the flattened `figures()` of a scorer names it (`overall/short`) -> value.
        setting: How it was measured.
        source: Where it stands.
        certainty: How sure it is.
        gain_over: The model that the figures are differences to; None if they are scores.
        version: Name of the published file of prompts; None if nobody knows which it was.
    """

    benchmark: str
    model: str
    figures: Mapping[str, float]
    setting: str
    source: str
    certainty: Certainty
    gain_over: str | None = None
    version: str | None = None


def reference_numbers(benchmark: str | None = None, file: Path = FILE) -> tuple[ReferenceNumbers, ...]:
    """The figures of a benchmark, or of all, in the order of the file.

    Raises ValueError for a benchmark without figures, and, naming the entry, for a file of another form.
    """
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not a list of entries")
    found = [numbers for n, entry in enumerate(content, start=1) for numbers in _of(f"{file}, entry {n}", entry)]
    chosen = tuple(numbers for numbers in found if benchmark in (None, numbers.benchmark))
    if not chosen and benchmark is not None:
        known = {numbers.benchmark for numbers in found}
        raise ValueError(f"{file}: has no figures of {benchmark!r}: {nearest(benchmark, known)}")
    return chosen


def _of(place: str, entry: Any) -> list[ReferenceNumbers]:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: is a {type(entry).__name__}, not a mapping with {', '.join(KEYS)}")
    for key in entry:
        if key not in KEYS + OPTIONAL:
            raise ValueError(f"{place}: unknown key {key!r}: {nearest(str(key), KEYS + OPTIONAL)}")
    texts = {key: entry.get(key) for key in KEYS if key != "figures"}
    for key, value in {**texts, **{key: entry[key] for key in OPTIONAL if key in entry}}.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place}: {key!r} is {value!r}, not a text")
    if entry["certainty"] not in get_args(Certainty):
        raise ValueError(f"{place}: certainty {entry['certainty']!r}: choose of {', '.join(get_args(Certainty))}")
    models = entry.get("figures")
    if not isinstance(models, dict) or not models:
        raise ValueError(f"{place}: 'figures' is {models!r}, not a mapping of models")
    for model, figures in models.items():
        if not isinstance(figures, dict) or not figures:
            raise ValueError(f"{place}: the figures of {model} are {figures!r}, not a mapping of names to numbers")
        for name, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{place}: {name!r} of {model} is {value!r}, not a number")
    return [
        ReferenceNumbers(
            benchmark=entry["benchmark"],
            model=str(model),
            figures={str(name): float(value) for name, value in figures.items()},
            setting=entry["setting"],
            source=entry["source"],
            certainty=entry["certainty"],
            gain_over=entry.get("gain_over"),
            version=entry.get("version"),
        )
        for model, figures in models.items()
    ]
