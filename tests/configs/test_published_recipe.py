"""The recipes of BAGEL-7B hold the published settings of AlphaGRPO (arXiv 2605.12495), number by number."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from project.__main__ import main
from project.samplers.schedule import Schedule
from project.samplers.window import Window
from tests.helpers import ROOT

RECIPES = {
    "rt2i": ("rt2i",),
    "t2i": ("rt2i", "t2i"),
    "srr": ("rt2i", "srr"),
    "srr_kl": ("rt2i", "srr", "srr_kl"),
    "mixed": ("rt2i", "srr", "mixed"),
    "edit_lora_load": ("rt2i", "edit_lora_load"),
}
"""Recipe -> the files that make it, each over the ones before."""
NOT_TRAINED = {"bench", "bench_unguided"}
"""What changes a recipe to measure it."""
OF_OTHERS = {"guard", "nft", "no_guidance", "velocity_kl"}
"""Methods of other papers over these recipes: tests/configs/test_configs.py builds them."""
ALL = tuple(RECIPES)
DRAWS = ("rt2i", "t2i")
REFINES = ("srr", "srr_kl", "mixed")
LONG = (*REFINES, "edit_lora_load")
SRR = ("srr", "srr_kl")

TASK, EVALUATED = "model.task", "model.evaluation.task"
SETTINGS: list[tuple[tuple[str, ...], str, Any]] = [
    # the update
    (ALL, "model.num_generations", 14),
    (ALL, "data.prompts_per_update", 32),
    (ALL, "model.update.per_rollout", 1),
    (ALL, "model.update.gradient_clip", 1.0),
    (ALL, "model.update.context_gradient", False),
    (ALL, "model.advantages.scale_rewards", "global"),
    (ALL, "model.advantages.clip", 5.0),
    (ALL, "trainer.precision", "bf16-mixed"),
    (ALL, "trainer.max_steps", 380),
    # what is trained
    (ALL, "model.trainable.lora.rank", 32),
    (ALL, "model.trainable.lora.alpha", 64),
    (ALL, "model.trainable.lora.dropout", 0.0),
    ((*DRAWS, *REFINES), "model.trainable.lora.init", "gaussian"),
    (ALL, "model.optimizer.weight_decay", 1e-4),
    ((*DRAWS, *REFINES), "model.optimizer.lr", 5e-5),
    # pictures
    (ALL, f"{TASK}.canvas", (512, 512)),
    (DRAWS, "model.sampler.schedule.num_steps", 16),
    (LONG, "model.sampler.schedule.num_steps", 40),
    (ALL, "model.sampler.schedule.shift", 3.0),
    (ALL, "model.sampler.transition.noise_level", 0.7),
    (DRAWS, "model.sampler.window.size", 10),
    (DRAWS, "model.sampler.window.range", [0, 11]),
    (LONG, "model.sampler.window.size", 5),
    (LONG, "model.sampler.window.range", [0, 15]),
    (ALL, "model.sampler.window.drawn", "prompt"),
    (DRAWS, f"{TASK}.guidance", {"text": 4.0, "image": 1.0, "interval": [0.4, 1.0], "renorm": "global"}),
    (LONG, f"{TASK}.guidance", {"text": 4.0, "image": 2.0, "interval": [0.0, 1.0], "renorm": "text_channel"}),
    # text
    (("rt2i", *LONG), f"{TASK}.think", True),
    (("t2i",), f"{TASK}.think", False),
    (ALL, f"{TASK}.max_tokens", 1024),
    (ALL, f"{TASK}.temperature", 1.0),
    (ALL, f"{TASK}.top_p", 0.8),
    # refinement
    (SRR, f"{TASK}.candidates", 7),
    (SRR, f"{TASK}.first.think", False),
    (SRR, f"{TASK}.first_sampler.schedule.num_steps", 40),
    (REFINES, f"{TASK}.pick", "worst"),
    (REFINES, f"{TASK}.rectification", "before"),
    (("mixed",), f"{TASK}.train_first", True),
    (("mixed",), f"{TASK}.first.think", True),
    (("mixed",), f"{TASK}.first_sampler", None),
    # the loss
    (ALL, "model.objective.clip_image", 1e-5),
    (ALL, "model.objective.clip_text", [0.2, 0.28]),
    (ALL, "model.objective.importance_sampling_level", "sequence"),
    (ALL, "model.objective.text_reduction", "sequences"),
    (ALL, "model.objective.first_step_ratio", "one"),
    (("rt2i", "t2i", "srr", "mixed"), "model.objective.kl_image", 0.0),
    (("rt2i", "t2i", "srr", "mixed"), "model.objective.kl_text", 0.0),
    (("srr_kl",), "model.objective.kl_image", 0.02),
    (("srr_kl",), "model.objective.kl_text", 0.001),
    (("srr_kl",), "model.objective.kl_image_form", "published"),
    # the judge
    (ALL, "judge.server.model", "Qwen/Qwen3-VL-30B-A3B-Instruct"),
    (ALL, "judge.top_logprobs", 5),
    (ALL, "judge.show_request", False),
    (ALL, "judge.text_fallback", False),
    (ALL, "rewards.0.aggregation", "geometric"),
    (DRAWS, "rewards.1.weight", 1.0),
    (DRAWS, "rewards.1.text_only", False),
    # evaluation and checkpoints
    (ALL, "trainer.val_check_interval", 10),
    (ALL, "saved.keep_every_n_updates", 20),
    (ALL, f"{EVALUATED}.max_tokens", 2048),
    (ALL, f"{EVALUATED}.temperature", 0.3),
    (ALL, f"{EVALUATED}.top_p", 1.0),
    (ALL, "model.evaluation.schedule.num_steps", 50),
    (ALL, f"{EVALUATED}.guidance.interval", [0.4, 1.0]),
    (("edit_lora_load",), f"{EVALUATED}.guidance.image", 1.5),
]


@cache
def printed(recipe: str) -> dict[str, Any]:
    """The whole configuration that `fit --print_config` shows."""
    return read(*(f"{ROOT}/configs/bagel/{name}.yaml" for name in RECIPES[recipe]))


def read(*files: str) -> dict[str, Any]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["fit", *(f"--config={file}" for file in files), "--print_config"]) == 0
    config: dict[str, Any] = yaml.safe_load(shown.getvalue())
    return config


def plain(value: Any) -> Any:
    """Without the levels `class_path` and `init_args`."""
    if isinstance(value, Mapping):
        inner = value.get("init_args", {}) if "class_path" in value else value
        return {key: plain(part) for key, part in (inner or {}).items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def found(recipe: str, key: str) -> Any:
    """The value of a dotted key; `judge`, `saved` and `canvas` stand for what is deep or named in two keys."""
    value = plain(printed(recipe))
    value["judge"] = value["rewards"][0]["judge"]["judge"]
    kinds = [callback["class_path"].rpartition(".")[2] for callback in printed(recipe)["trainer"]["callbacks"]]
    value["saved"] = value["trainer"]["callbacks"][kinds.index("SaveLast")]
    task = value["model"]["task"]
    task["canvas"] = tuple(task.get("first", task)[side] for side in ("height", "width"))
    for step in key.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


ROWS = [pytest.param(recipe, key, value, id=f"{recipe}-{key}") for names, key, value in SETTINGS for recipe in names]


@pytest.mark.parametrize(("recipe", "key", "published"), ROWS)
def test_a_setting_is_the_published_one(recipe: str, key: str, published: Any) -> None:
    value = found(recipe, key)
    if isinstance(published, dict):
        value = {name: value[name] for name in published}
    assert value == published


def test_every_recipe_is_compared() -> None:
    files = {file.stem for file in (ROOT / "configs/bagel").glob("*.yaml")}
    assert files - NOT_TRAINED - OF_OTHERS == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_printed_starts_the_same_run(recipe: str, tmp_path: Any) -> None:
    """`--print_config` of every recipe, read again."""
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(printed(recipe)))
    assert read(str(tmp_path / "whole.yaml")) == printed(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_rewards_are_the_published_ones(recipe: str) -> None:
    """The reward for tags goes with reasoning text-to-image; in refinement it has no effect in the published run."""
    names = [reward["class_path"].rpartition(".")[2] for reward in printed(recipe)["rewards"]]
    assert names == (["DVReward"] if recipe in REFINES else ["DVReward", "ThinkTags"])
    (benchmark,) = printed(recipe)["benchmarks"]
    assert benchmark["class_path"].endswith("MeanReward")


@pytest.mark.parametrize("recipe", RECIPES)
def test_held_out_prompts_are_not_those_of_training(recipe: str) -> None:
    data = plain(printed(recipe))["data"]
    assert data["val"] and data["val"].partition("[")[0] != data["train"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_window_lies_where_steps_are_stochastic(recipe: str) -> None:
    sampler = plain(printed(recipe))["model"]["sampler"]
    evaluations = Schedule(sampler["schedule"]["num_steps"]).evaluations
    lo, hi, size = Window(size=sampler["window"]["size"], range=sampler["window"]["range"]).fitted(evaluations)
    assert evaluations == {16: 15, 40: 39}[sampler["schedule"]["num_steps"]]
    assert [*range(lo, hi - size + 1)] == ([0, 1] if size == 10 else [*range(11)])


@pytest.mark.parametrize("recipe", REFINES)
def test_texts_of_refinement_weigh_one_over_the_trained_steps(recipe: str) -> None:
    """The task's factor comes on top of the objective's; in mixed training both tasks have the weight."""
    model = plain(printed(recipe))["model"]
    refined = model["task"]["text_weight"] * model["objective"]["text_weight"]
    first = model["objective"]["text_weight"]
    assert refined == pytest.approx(1 / model["sampler"]["window"]["size"])
    assert first == pytest.approx(refined if recipe == "mixed" else 1.0)
