"""`explain` on complaints as jsonargparse words them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from project.core.config_files import unknown_empty_key, unreadable
from project.core.errors import explain
from project.core.moved_paths import canonical, moved
from project.core.nearest import nearest


@dataclass
class Guidance:
    text: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)


class Task:
    def __init__(self, guidance: Guidance | None = None) -> None: ...


TASK = f"{__name__}.Task"
YAML = f"""\
model:
  class_path: a.Model
  init_args:
    task:
      class_path: {TASK}
      init_args:
        guidance: {{text: much, intervall: [0, 1]}}
    optimizer:
      class_path: torch.optim.SGD
      init_args:
        lrr: 1
"""
TREE = """\
Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Model'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'a.Model':
        Parser key "{key}":
          {cause}
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {{'class_path': 'a.Model'}}"""
CALLABLE = "Type typing.Callable[[x], y] expects a function or a callable class: {}. Got value: N(class_path='{}')"
CASES = {
    "field_of_a_dataclass": (
        "task",
        f"Problem with given class_path '{TASK}':\n            Group 'guidance' does not accept option 'intervall'",
        f"c.yaml:7: unknown key 'intervall' in 'guidance' of {TASK}: did you mean 'interval'?",
    ),
    "value_in_a_dataclass": (
        "task",
        f"Problem with given class_path '{TASK}':\n            Parser key \"guidance.text\":\n"
        "              Expected a <class 'float'>. Got value: much",
        "c.yaml:7: model.task.guidance.text is 'much': give float",
    ),
    "argument_of_a_callable": (
        "optimizer",
        CALLABLE.format("Option 'lrr' is not accepted", "torch.optim.SGD"),
        "c.yaml:11: unknown key 'lrr' of torch.optim.SGD: did you mean 'lr'?",
    ),
    "callable_class": (
        "optimizer",
        CALLABLE.format("module 'torch.optim' has no attribute 'SGDD'", "torch.optim.SGDD"),
        "there is no torch.optim.SGDD (module 'torch.optim' has no attribute 'SGDD'): did you mean 'SGD'?",
    ),
    "import_in_a_module": (
        "task",
        "Problem with given class_path 'a.Judge':\n            No module named 'vllm.inputs'",
        "a.Judge cannot be imported: No module named 'vllm.inputs' (pip install vllm?)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cause_deep_in_the_tree(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(YAML)
    key, cause, expected = CASES[case]
    assert explain(TREE.format(key=key, cause=cause), [Path("c.yaml")]) == expected


def test_alternatives_are_all_named() -> None:
    message = (
        'Parser key "trainer.precision":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
        "    - Expected a typing.Literal[64, 32]\n    - Expected a typing.Literal['bf16-true']\n"
        "    - Expected a <class 'NoneType'>\n  Given value: 33"
    )
    assert explain(message) == "trainer.precision is '33': give one of 64, 32 or one of 'bf16-true'"


def test_nearest() -> None:
    assert nearest("lrr", ["lr", "weight_decay"]) == "did you mean 'lr'?"
    assert nearest("zzz", ["b", "a"]) == "choose of a, b"
    assert nearest("zzz", []) == "it takes none, remove it"


def test_an_unforeseen_complaint_is_passed_on() -> None:
    assert explain("something else") == "something else"


def test_an_overlay_is_found_without_the_class_that_the_base_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(YAML)
    Path("over.yaml").write_text(
        "model:\n  init_args:\n    task:\n      init_args:\n        size: seven\n        sizes: 7\n"
    )
    files = [Path("c.yaml"), Path("over.yaml")]
    inside = f"Problem with given class_path '{TASK}':\n            "
    wrong = inside + "Parser key \"size\":\n              Expected a <class 'int'>. Got value: {}"
    unknown = inside + "Option 'sizes' is not accepted"
    explained = explain(TREE.format(key="task", cause=wrong.format("seven")), files)
    assert explained == "over.yaml:5: model.task.size is 'seven': give int"
    assert explain(TREE.format(key="task", cause=unknown), files).startswith("over.yaml:6: unknown key 'sizes'")
    # A word that stands in no file came from the command line: no line of a file is to blame.
    assert (
        explain(TREE.format(key="task", cause=wrong.format("eight")), files) == "model.task.size is 'eight': give int"
    )


def test_an_overlay_without_its_base_is_told_so(tmp_path):
    message = TREE.replace("a.Model", "lightning.LightningModule").format(
        key="task", cause="Option 'size' is not accepted"
    )
    assert (
        explain(message, []) == "model has arguments but no class: give the file with model.class_path before this one"
    )


@pytest.mark.parametrize(
    "old, new",
    [
        ("project.judges.shapes.DetectorJudge", "project.shapes.DetectorJudge"),
        ("project.lr_schedules.WarmupHoldDecay", "project.training.WarmupHoldDecay"),
        ("project.benchmarks.shapes.ShapesBenchmark", "project.shapes.ShapesBenchmark"),
        ("project.judges.openai.OpenAIJudge", "project.judges.OpenAIJudge"),
        ("project.loggers.MetricsCSV", "project.cli.loggers.MetricsCSV"),
    ],
)
def test_a_class_path_of_an_older_configuration_is_refused_with_the_new_one(old, new, tmp_path):
    file = tmp_path / "c.yaml"
    for text, line in ((f"a:\n  - {{class_path: {old}}}\n", 2), (f"a:\n\n  b: {old}\n", 3), (f"a: [{old}]\n", 1)):
        file.write_text(text)
        assert unreadable([file]) == f"{file}:{line}: {old} is now {new}: give the new name"
    message = TREE.replace("a.Model", old).format(key="x", cause="No module named 'project.judges.shapes'")
    assert explain(message) == f"{old} is now {new}: give the new name"
    assert canonical(old) == canonical(new) == new


@pytest.mark.parametrize(
    "path",
    ["project.judges.CachedJudge", "project.judges.cache.CachedJudge", "project.judges.openai.judge.OpenAIJudge",
     "project.module.AlphaGRPO", "project.models.bagel.Bagel", "torch.optim.AdamW", "project.judges.Nonsense",
     "project.judges.cache"],
)  # fmt: skip
def test_paths_that_hold_or_are_nobodys_are_left_alone(path, tmp_path):
    (tmp_path / "c.yaml").write_text(f"a: {path}\n")
    assert unreadable([tmp_path / "c.yaml"]) is None


def test_every_class_keeps_its_long_path_and_has_a_short_one():
    for module in ("judges.cache.CachedJudge", "shapes.judge.DetectorJudge", "models.bagel.model.Bagel"):
        room, _, name = module.partition(".")[0], *module.rpartition(".")[1:]
        assert moved(f"project.{module}") is None
        assert canonical(f"project.{module}") == f"project.{room}.{name}"
    assert canonical("project.module.AlphaGRPO") == "project.module.AlphaGRPO"
    # Two rooms have a class of this name: the room tells which.
    assert canonical("project.shapes.calibration.Counts") == "project.shapes.Counts"
    assert canonical("project.objectives.base.Counts") == "project.objectives.Counts"


@pytest.mark.parametrize(
    "text, message",
    [
        ("modle: {}", ":1: unknown key 'modle' at the top level: did you mean 'model'?"),
        ("modle:\n  inner: {}", ":1: unknown key 'modle' at the top level: did you mean 'model'?"),
        ("run: {nmae: {}}", ":1: unknown key 'nmae' in 'run': did you mean 'name'?"),
        ("model: {init_args: {guidence: {}}}", f":1: unknown key 'guidence' of {TASK}: did you mean 'guidance'?"),
        (
            f"model:\n  class_path: {TASK}\n  init_args:\n    guidance:\n      txt: {{}}",
            ":5: unknown key 'txt' in 'guidance': did you mean 'text'?",
        ),
        (
            f"parts:\n- class_path: {TASK}\n  init_args:\n    guidence: {{}}",
            f":4: unknown key 'guidence' of {TASK}: did you mean 'guidance'?",
        ),
        (f"model: {{class_path: {TASK}, init_args: {{}}, dict_kwargs: {{}}}}", None),
        ("run: {}", None),
        ("words: {any: {}}", None),
    ],
)
def test_an_unknown_key_is_refused_though_it_holds_nothing(text, message, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--run.name", default="x")
    parser.add_argument("--model", type=Task, default={"class_path": TASK})
    parser.add_argument("--parts", type=list[Task], default=[])
    parser.add_argument("--words", type=dict, default={})
    found = unknown_empty_key([file], parser.parse_args(["--config", str(file)]))
    assert found == (message and f"{file}{message}")


def test_what_a_later_file_takes_the_place_of_is_not_asked_for(tmp_path):
    """`scheduler` is an argument of the class that the second file puts another one in the place of."""
    for name, text in (("a", "m: {class_path: x.A, init_args: {scheduler: {}}}"), ("b", "m: {class_path: x.B}")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "a", tmp_path / "b"]
    assert unknown_empty_key(files, {"m": {"class_path": "x.B", "init_args": {"rate": 1}}}) is None
    assert unknown_empty_key(files, {"m": {"class_path": "x.A", "init_args": {"rate": 1}}}) is not None


def test_a_group_of_settings_takes_no_null_as_an_option(capsys):
    from project.__main__ import main

    demo = "configs/shapes/demo.yaml"
    assert main(["fit", "--config", demo, "--model.init_args.trainable.lora=null", "--print_config"]) == 2
    assert "trainable.lora: null cannot be given as an option here, write it into a YAML" in capsys.readouterr().err


def test_a_class_of_another_kind_is_named_with_all_kinds_that_fit() -> None:
    given = """Parser key "judge":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Judge'>, <class 'FreeTextJudge'>]
  Errors:
    - Import path{0} does not correspond to a subclass of Judge
    - Import path{0} does not correspond to a subclass of FreeTextJudge
  Given value type: <class 'str'>
  Given value: project.judges.X"""
    for path in ("", " project.judges.X"):
        assert explain(given.format(path)) == "project.judges.X is no Judge or FreeTextJudge: name a class that is"


def test_what_must_be_given_is_an_option_where_there_is_no_file() -> None:
    message = "the following arguments are required: items, out"
    assert explain(message) == "--items and --out must be given: see --help"
    assert explain(message, [Path("c.yaml")]) == "c.yaml: the configuration lacks 'items', 'out': add it"
