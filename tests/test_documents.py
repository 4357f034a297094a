"""README and guides are true: their code runs, their YAML builds, their commands parse, what they name is there.

A comment above a code block says what it is, where its language alone does not:

    <!-- file: NAME -->          a file that the reader saves; later blocks and commands of the document use it
    <!-- over: CONFIG -->        YAML that goes over another configuration than the demo's
    <!-- command: study -->      YAML of that command, not of `fit`
    <!-- excerpt: FILE -->       lines of a file of the project
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from project.__main__ import command_files, command_parser, main
from project.cli.lightning_cli import ProjectCLI
from project.data.prompts import read_prompts
from project.study.plan import read_study
from tests.helpers import ROOT

DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        *(file for folder in ("configs", "data", "project") for file in (ROOT / folder).rglob("*.md")),
    ]
)
BLOCK = re.compile(
    r"(?:^<!-- (?P<kind>\w+)(?:: (?P<value>.+?))? -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
DEMO = "configs/shapes/demo.yaml"
LIGHTNING = ("fit", "validate", "test", "predict")
OURS = ("configs", "data", "notebooks", "project", "tests")
"""Folders whose files a document may name."""
LANGUAGES = ("python", "yaml", "shell", "json", "text", "")
LONGEST_README = 150
OF_THE_READER = ("project/rewards/brightness.py", "project.rewards.Brightness")
"""What the README lets its reader make."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    kind: str
    value: str
    line: int


@dataclass(frozen=True)
class Document:
    """A Markdown file and its blocks."""

    file: Path
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.file.read_text(encoding="utf-8"))

    def blocks(self, *languages: str) -> list[Block]:
        return [
            Block(
                language=found["language"],
                text=found["text"],
                kind=found["kind"] or "",
                value=found["value"] or "",
                line=self.text.count("\n", 0, found.start()) + 1,
            )
            for found in BLOCK.finditer(self.text)
            if not languages or found["language"] in languages
        ]

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return BLOCK.sub("", self.text)


class Parsing(ProjectCLI):
    """Makes the parser of `fit` and its like, and neither builds nor runs anything."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture(scope="module")
def fit_parser() -> ArgumentParser:
    """Made once: it takes a second or two."""
    return Parsing(["fit", f"--config={ROOT / DEMO}"]).parser


documents = pytest.mark.parametrize(
    "document",
    [Document(file) for file in DOCUMENTS],
    ids=lambda document: str(document.file.relative_to(ROOT).with_suffix("")).removesuffix("/README"),
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a reader: the repository's files are there, and what the reader saves stays there."""
    for name in OURS:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path) + "/"):
            del sys.modules[name]


def save_files(document: Document, desk: Path) -> None:
    for block in document.blocks():
        if block.kind == "file":
            (desk / block.value).write_text(block.text, encoding="utf-8")


def parse(command: list[str], fit_parser: ArgumentParser) -> None:
    """The options of `python -m project COMMAND ...`, as the command would read them."""
    name, *options = command
    parser = fit_parser
    if name not in LIGHTNING:
        parser = command_parser(name, options)
    try:
        parser.parse_args(command if name in LIGHTNING else options)
    except SystemExit as stop:  # --help, --print_config
        assert stop.code == 0, command


def commands(document: Document) -> list[list[str]]:
    """The words of every command of the shell blocks, without comments."""
    lines = [line for block in document.blocks("shell") for line in block.text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@documents
def test_every_block_says_its_language(document: Document) -> None:
    assert document.text.count("```") == 2 * len(document.blocks()), "a block is not closed, or its comment is unknown"
    for block in document.blocks():
        assert block.language in LANGUAGES, f"{document.file}:{block.line}"
        assert block.kind in ("", "file", "over", "command", "excerpt"), f"{document.file}:{block.line}"


@documents
def test_python_runs(document: Document, desk: Path) -> None:
    save_files(document, desk)
    names: dict[str, object] = {"__name__": "document"}
    for block in document.blocks("python"):
        if block.kind != "excerpt":
            exec(compile(block.text, f"{document.file}:{block.line}", "exec", dont_inherit=True), names)


@documents
def test_excerpts_are_lines_of_their_file(document: Document) -> None:
    for block in document.blocks():
        if block.kind == "excerpt":
            lines = iter(line.partition("  #")[0].strip() for line in (ROOT / block.value).read_text().splitlines())
            for line in block.text.splitlines():
                assert line.partition("  #")[0].strip() in lines, f"{document.file}:{block.line}: {line}"


@documents
def test_yaml_builds(document: Document, desk: Path, fit_parser: ArgumentParser) -> None:
    save_files(document, desk)
    for n, block in enumerate(document.blocks("yaml")):
        file = desk / (block.value if block.kind == "file" else f"block_{n}.yaml")
        file.write_text(block.text, encoding="utf-8")
        if block.kind == "command" and block.value == "study":
            read_study(file)
        elif f"decompose --config {file.name}" in document.text:
            continue  # the command is parsed with it
        else:
            base = block.value if block.kind == "over" else DEMO
            fit_parser.instantiate_classes(fit_parser.parse_args(["fit", f"--config={base}", f"--config={file}"]))


@documents
def test_rows_are_read(document: Document, desk: Path) -> None:
    for block in document.blocks("json"):
        (desk / "rows.jsonl").write_text(json.dumps(json.loads(block.text)) + "\n")
        assert len(read_prompts("rows.jsonl")[0].questions) == 3


@documents
def test_commands_parse(document: Document, desk: Path, fit_parser: ArgumentParser) -> None:
    save_files(document, desk)
    for words in commands(document):
        if words[0] == "sbatch":
            script = next(n for n, word in enumerate(words) if word.endswith(".sbatch"))
            assert Path(words[script]).is_file() and all(word.startswith("--") for word in words[1:script]), words
            if options := words[script + 1 :]:
                parse(["fit", *options], fit_parser)
        elif "-m" in words and words[0] in ("python", "torchrun"):
            module, *rest = words[words.index("-m") + 1 :]
            if module == "project":
                parse(rest, fit_parser)
            else:
                assert importlib.util.find_spec(module), words
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), words
        elif words[0] == "pytest":
            assert all(Path(word).exists() for word in words if word.startswith("tests/")), words


@documents
def test_every_command_is_one_of_the_project(document: Document) -> None:
    for name in re.findall(r"python -m project ([a-z]+)", document.text):
        assert name in (*LIGHTNING, *command_files()), f"{document.file}: {name}"


@documents
def test_named_files_are_there(document: Document) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", document.text)
    for link in links:
        assert (document.file.parent / link).exists(), f"{document.file}: {link}"
    named = re.findall(rf"`((?:{'|'.join(OURS)})/[^`\s]*)`", document.text)
    named += [word for words in commands(document) for word in words if word.partition("/")[0] in OURS and "/" in word]
    for name in named:
        path, _, _ = name.partition("[")  # without a slice
        assert name in OF_THE_READER or (ROOT / path).exists(), f"{document.file}: {name}"


@documents
def test_named_classes_are_there(document: Document) -> None:
    for path in re.findall(r"`(project(?:\.\w+)*\.[A-Z]\w*)`", document.prose):
        module, _, name = path.rpartition(".")
        assert path in OF_THE_READER or hasattr(importlib.import_module(module), name), f"{document.file}: {path}"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_README


def test_the_readme_states_results_as_the_guide_does() -> None:
    """Every figure of the last column, with its interval, stands in the guide with all results."""
    guide = (ROOT / "project/shapes/README.md").read_text(encoding="utf-8")
    results = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results")[1].split("\n## ")[0]
    here = [line.split("|")[-2] for line in results.splitlines() if line.startswith("|")][2:]
    figures = [figure for cell in here for figure in re.findall(r"[+-]?\d+\.\d+(?: \[.+?\])?", cell)]
    assert len(here) >= 5 and len(figures) >= 2 * len(here)
    missing = [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\.?\d)", guide)]
    assert not missing, missing


def test_the_examples_of_extensions_train(desk: Path) -> None:
    """As the documents say: a file beside the command, named by class path. All of them in one run."""
    merged: dict[str, Any] = {}
    names: list[str] = []
    for document in map(Document, DOCUMENTS):
        save_files(document, desk)
        modules = [Path(block.value).stem for block in document.blocks("python") if block.kind == "file"]
        for block in document.blocks("yaml"):
            if any(re.search(rf"\b{module}\.\w+", block.text) for module in modules):
                merged = together(merged, yaml.safe_load(block.text))
        names += modules
    assert {"brightness", "red_judge", "early", "noise_weighted", "short_texts"} <= set(names)
    (desk / "merged.yaml").write_text(yaml.safe_dump(merged))
    small = {
        "trainer.max_steps": 2,
        "trainer.num_sanity_val_steps": 0,
        "trainer.callbacks": "[]",
        "data.init_args.prompts_per_update": 1,
        "data.init_args.val": "data/shapes/eval.jsonl[:2]",
        "model.init_args.num_generations": 2,
        "model.init_args.update.per_rollout": 2,  # in the second step ratios have drifted
    }
    assert main(["fit", f"--config={DEMO}", "--config=merged.yaml", *(f"--{k}={v}" for k, v in small.items())]) == 0
    (metrics,) = (desk / "runs").rglob("metrics.csv")
    columns, *rows = (line.split(",") for line in metrics.read_text().splitlines())
    for name in ("reward/mean", "reward/short", "loss/image", "short/right"):
        assert any(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", row[columns.index(name)]) for row in rows), name


def together(first: Any, second: Any) -> Any:
    """Two configurations as one: mappings are merged, lists joined."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **{k: together(first[k], v) if k in first else v for k, v in second.items()}}
    return first + second if isinstance(first, list) and isinstance(second, list) else second
