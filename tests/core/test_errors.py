"""`explain` on complaints as jsonargparse words them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from project.core.errors import explain
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
