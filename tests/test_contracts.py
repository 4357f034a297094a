"""Every sampler, objective, reward, judge, detector, decomposer, task, benchmark and model keeps its contract.

The package is walked: a new class is found by itself. It must live in a file of its own, be documented argument by
argument, be made from plain YAML values, and pass the tests of its family below on a tiny input. A class with
required arguments needs an example of them in `ARGUMENTS`.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import inspect
import itertools
import json
import math
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import project
from project.__main__ import command_parser
from project.benchmarks.base import Benchmark, flatten
from project.benchmarks.geneval.colors import ColorClassifier
from project.benchmarks.geneval.detections import Detection
from project.benchmarks.geneval.detector import Detector
from project.benchmarks.geneval.items import COLORS
from project.benchmarks.pictures.base import Picture, PictureBenchmark
from project.benchmarks.scoring import MODES
from project.core.images import read_picture
from project.core.metrics import Mean, Sum
from project.core.timing import Stopwatch
from project.data.prompts import read_prompts
from project.decomposition.base import ChatModel, Decomposer
from project.judges.base import Judge, TextJudge
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest
from project.judges.short_answers import ShortAnswer, ShortAnswerJudge
from project.models.bagel.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from project.models.base import ModelSource, UnifiedModel
from project.models.context import Contexts
from project.objectives.base import LossInputs, LossOutputs, Objective
from project.objectives.joint import Joint
from project.objectives.parts import ImagePart, ImagePenalty, Part, TextPart, TextPenalty
from project.rewards.base import Reward, score
from project.rewards.random import RandomReward
from project.rewards.scoring import Scorer
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.samplers.transition import Transition
from project.samplers.window import Window
from project.shapes.editing import apply, edit_of
from project.shapes.reflection_judge import CLARIFY
from project.shapes.renderer import render_all
from project.shapes.scenes import Layout, Scene, sample_layout
from project.tasks.base import EvaluationTask, Task
from project.tasks.reasoning_t2i import ReasoningT2I
from project.trajectory import Advantages, Group, ImageSegment, Prompt, SampleKey, TextSegment, Trajectory
from tests.helpers import (
    ROOT,
    all_published,
    backbones,
    chat_server,
    llm_server,
    score_runs,
    tiny_benchmarks,
    tiny_geneval,
    tiny_vlms,
)
from tests.helpers.sampling import at, roll, sde

FAMILIES = (
    Schedule,
    Transition,
    Window,
    Objective,
    Part,
    Reward,
    Judge,
    TextJudge,
    FreeTextJudge,
    ShortAnswerJudge,
    Decomposer,
    ChatModel,
    EvaluationTask,
    Benchmark,
    PictureBenchmark,
    Detector,
    ColorClassifier,
    ModelSource,
    UnifiedModel,
)
PLACES = {
    **dict.fromkeys((Objective, Reward, Judge, Benchmark), "{family}s"),
    Part: "objectives",
    **dict.fromkeys((Schedule, Transition, Window), "samplers"),
    EvaluationTask: "tasks",
    TextJudge: "judges",
    FreeTextJudge: "judges",
    ShortAnswerJudge: "judges",
    Decomposer: "decomposition",
    ChatModel: "decomposition",
    **dict.fromkeys((PictureBenchmark, Detector, ColorClassifier), "benchmarks"),
    ModelSource: "models",
    UnifiedModel: "models",
}

# Example arguments of every class that has required ones (or more sides than one to show): plain YAML values.
# In "$name" stand what only the test knows: "$checkpoint" and "$autoencoder" are folders, "$height" and "$width" the
# size [pixels] that suits the backbone, "$server" and "$scorer" addresses of a model server and a reward service,
# "$mask2former" and "$clip" folders of tiny networks, "$detections" a file, and "$table" DPG-Bench's of the prompts.
FIRST = {
    "class_path": "project.tasks.reasoning_t2i.ReasoningT2I",
    "init_args": {"height": "$height", "width": "$width", "max_tokens": 3},
}
DETECTOR = {"class_path": "project.shapes.judge.DetectorJudge"}
CHAT = {
    "class_path": "project.decomposition.openai_client.OpenAIChat",
    "init_args": {"server": {"base_url": "$llm", "model": "tiny-llm"}},
}
SERVED: dict[str, Any] = {"init_args": {"server": {"base_url": "$server", "model": "tiny-vlm"}}}
WRITER = {"class_path": "project.judges.openai.free_text_judge.OpenAIFreeTextJudge"} | SERVED
YES_NO = {"class_path": "project.judges.openai.judge.OpenAIJudge"} | SERVED
SHORT = {"class_path": "project.judges.openai.short_answer_judge.OpenAIShortAnswerJudge"} | SERVED
CHECKPOINT = {
    "class_path": "project.models.bagel.source.BagelCheckpoint",
    "init_args": {"directory": "$checkpoint"},
}
FOUND = {"file": "$detections", "detector": "mmdet mask2former"}
DPG = {
    "pictures": {"class_path": "project.benchmarks.DPGPictures", "init_args": {"judge": DETECTOR, "samples": 1}},
    "items": "$table",
}
REFLECTION = {"class_path": "project.shapes.reflection_judge.ReflectionJudge"}
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "BagelCheckpoint": [{"directory": "$checkpoint"}, {"directory": "$checkpoint", "random_weights": True}],
    "BenchmarkReward": [
        {"benchmark": {"class_path": "project.shapes.benchmark.ShapesBenchmark"}, "flips": 0.1},
        {
            "benchmark": {"class_path": "project.benchmarks.published.PublishedBenchmark", "init_args": DPG},
            "outcome": "worth",
        },
    ],
    "NoisyJudge": [{"judge": DETECTOR}, {"judge": DETECTOR, "noise": 0.0, "floor": 0.01, "seed": 5}],
    "CLIPScore": [{"model": "$clip"}, {"model": "$clip", "scale": 1.0, "batch_size": 1}],
    "CachedShortAnswerJudge": [{"judge": SHORT, "folder": "$folder"}],
    "CLIPColors": [{"model": "$clip"}],
    "CachedFreeTextJudge": [{"judge": WRITER, "folder": "$folder", "max_bytes": 200_000}],
    "CachedJudge": [{"judge": DETECTOR, "folder": "$folder", "max_bytes": 200_000}],
    "DPGPictures": [{"judge": YES_NO}, {"judge": YES_NO, "samples": 1}],
    "DetectionsFile": [FOUND],
    "DrGRPOText": [{"length": 5}],
    "DVReward": [
        {"judge": DETECTOR},
        {"judge": DETECTOR, "tag_weights": {"Count": 2.0, "Geometry": 0.0}},
        {"judge": DETECTOR, "aggregation": "mean", "binary": True, "use_dependencies": True, "weight": 0.5},
        {"judge": DETECTOR, "aggregation": "all"},
    ],
    "FlowCPS": [{}, {"noise_level": 0.0}],
    "ConstantSDE": [{}, {"noise_level": 0.0}],
    "FlowSDE": [{}, {"noise_level": 0.0}],
    "FixedSteps": [{"numbers": [0, 2, 3]}, {"numbers": [4]}],
    "SlidingWindow": [{}, {"size": 2, "range": [1, 5], "every": 3, "stride": 2, "after_last": "last"}],
    "Schedule": [{"num_steps": 6}, {"num_steps": 2, "shift": 1.0}],
    "Window": [{}, {"size": 2, "range": [1, 4]}],
    "FunctionReward": [{"function": "tests.helpers.backbones.brightness"}],
    "GEditPictures": [{"judge": WRITER}, {"judge": WRITER, "language": "cn", "groups": ["ps_human", "text_change"]}],
    "GenEval2Pictures": [{"judge": SHORT}],
    "GenEvalPictures": [
        {
            "detector": {"class_path": "project.benchmarks.geneval.detections_file.DetectionsFile", "init_args": FOUND},
            "colors": {"class_path": "project.benchmarks.geneval.colors.CLIPColors", "init_args": {"model": "$clip"}},
            "samples": 2,
        },
    ],
    "GRPO": [
        {},
        {"kl_image": 0.1, "kl_text": 0.1},
        {"importance_sampling_level": "token", "text_reduction": "sequences", "kl_image_form": "exact"},
        {"top_entropy_quantile": 0.5, "clip_text": [0.1, 0.1], "text_weight": 0.5},
        {"first_step_ratio": "one"},
    ],
    "GRPOText": [{}, {"importance_sampling_level": "sequence", "top_entropy_quantile": 0.5}],
    "GuardImage": [{}, {"divide_by_length": False, "first_step_ratio": "one"}],
    "Joint": [
        {"image": {"class_path": "project.objectives.NFTImage"}, "text": {"class_path": "project.objectives.GSPOText"}},
        {
            "image": {"class_path": "project.objectives.GuardImage"},
            "image_penalty": {"class_path": "project.objectives.VelocityKL", "init_args": {"weight": 0.1}},
            "text": {"class_path": "project.objectives.DrGRPOText", "init_args": {"length": 5}},
            "text_penalty": {"class_path": "project.objectives.TokenKL", "init_args": {"weight": 0.1}},
        },
        {"text": {"class_path": "project.objectives.TruncatedText"}, "text_weight": 0.5},
    ],
    "StepKL": [{"weight": 0.1}, {"weight": 0.1, "form": "exact"}],
    "TokenKL": [{"weight": 0.1}],
    "VelocityKL": [{"weight": 0.1}, {"weight": 0.1, "at": "noised", "states": 3, "guided": False}],
    "HolisticReward": [
        {"judge": DETECTOR, "instruction": "is there {prompt} ?"},
        {"judge": DETECTOR, "instruction": "is there {prompt} ?", "binary": True},
    ],
    "Mask2FormerDetector": [{"model": "$mask2former", "short_side": 64, "long_side": 96, "minimum_score": 0.0}],
    "MeanReward": [
        {"reward": {"class_path": "project.rewards.dvreward.DVReward", "init_args": {"judge": DETECTOR}}},
    ],
    "ImgEditPictures": [{"judge": WRITER}],
    "JudgedStructure": [
        {"judge": REFLECTION, "mask_image": True},
        {"judge": REFLECTION, "steps": {"clarify": CLARIFY}},
    ],
    "LLMDecomposer": [{"client": CHAT}, {"client": CHAT, "again": 0, "validate": False, "quality": False}],
    "MLLMLikelihood": [
        {"model": "$vlm", "dtype": "float32", "batch_size": 3},
        {"model": "$vlm", "dtype": "float32", "baseline": "no_picture"},
    ],
    "NewEmbeddedModel": [
        {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "autoencoder": "$autoencoder", "seed": 3}
    ],
    "NewVision": [{"directory": "$checkpoint", "vision_hidden_size": 32, "vision_layers": 1}],
    "OCRReward": [{"column": "set", "reader": {"class_path": "tests.helpers.reward_functions.SomeWords"}}],
    "OpenAIFreeTextJudge": [
        SERVED["init_args"],
        {**SERVED["init_args"], "retry_temperature": 0.7, "num_pictures": 0, "image_size": 64},
    ],
    "OpenAIJudge": [
        {"server": {"base_url": "$server", "model": "tiny-vlm"}},
        {"server": {"base_url": ["$server", "$server"], "model": "tiny-vlm"}, "image_size": 64, "text_fallback": True},
        {"server": {"base_url": "$server", "model": "tiny-vlm"}, "show_request": True},
    ],
    "OpenAIShortAnswerJudge": [SERVED["init_args"], {**SERVED["init_args"], "top_logprobs": 6, "image_size": 64}],
    "OpenAITextJudge": [{"server": {"base_url": "$server", "model": "tiny-vlm"}}],
    "PickScore": [{"model": "$clip", "tokenizer": "$clip"}],
    "ReasoningT2I": [
        {"height": "$height", "width": "$width", "max_tokens": 5, "guidance": {"text": 2.0, "interval": [0.2, 0.9]}},
        {"height": "$height", "width": "$width", "max_tokens": 2, "temperature": 0.7, "prompts_per_forward": 1},
        {"height": "$height", "width": "$width", "think": False, "shared_noise": True},
    ],
    "Editing": [
        {"height": "$height", "width": "$width", "max_tokens": 3, "source": "tests.helpers.backbones.grey_picture"},
    ],
    "Answering": [
        {"max_tokens": 3, "source": "tests.helpers.backbones.grey_picture"},
        {"max_tokens": 2, "temperature": 0.7, "think": True, "source": "tests.helpers.backbones.grey_picture"},
    ],
    "Comparing": [
        {"tasks": [{"class_path": "project.tasks.redrawing.Redrawing", "init_args": {"first": FIRST}}, FIRST]},
    ],
    "PublishedBenchmark": [DPG, {**DPG, "mode": "strict", "overlap": False, "name": "mine"}],
    "Redrawing": [{"first": FIRST}, {"first": FIRST, "draws": 3, "keep": "last"}, {"first": FIRST, "keep": "both"}],
    "SelfReflection": [
        {"first": FIRST, "max_tokens": 4},
        {"first": FIRST, "max_tokens": 4, "rounds": 2, "train_first": True, "credit": "own", "requests_per_forward": 2},
        {"first": FIRST, "max_tokens": 2, "rounds": 2, "pick": "softmax", "credit": "improvement", "think": False},
        {"first": FIRST, "max_tokens": 2, "wording": "Asked for: {prompt}. What is wrong?"},
    ],
    "SelfLikelihood": [
        {"policy": CHECKPOINT},
        {"policy": CHECKPOINT, "instruction": "", "baseline": "no_picture", "batch_size": 3},
    ],
    "ServiceReward": [
        {"service": {"base_url": "$scorer"}},
        {"service": {"base_url": ["$scorer", "$scorer"], "retries": 1}, "batch_size": 3, "texts": True},
        {"service": {"base_url": "$scorer"}, "columns": ["kind"], "scorer": "hash-1", "cache": "$folder"},
    ],
    "TIIFPictures": [{"judge": YES_NO}, {"judge": WRITER}, {"judge": WRITER, "model": "mine"}],
    "ThinkTags": [{}, {"text_only": False, "weight": 1.0}],
    "TransformersFreeTextJudge": [
        {"model": "$vlm", "dtype": "float32"},
        {"model": "$vlm", "quantization": "4bit", "batch_size": 1, "retry_temperature": 1.0},
    ],
    "TransformersJudge": [
        {"model": "$vlm", "dtype": "float32", "minimum_mass": 0.0},
        {"model": "$vlm", "quantization": "4bit", "batch_size": 3, "minimum_mass": 0.0},
    ],
    "UnifiedJudge": [
        {
            "policy": CHECKPOINT,
            "template": "plain",
            "minimum_mass": 0.0,
        },
    ],
    "WISEPictures": [{"judge": WRITER}, {"judge": WRITER, "edition": "verified"}],
}  # fmt: skip
EDITS = {"ShapesEditingBenchmark"}
"""Benchmarks that measure edits of a given picture (data/shapes/edit.jsonl)."""
ANSWERS = {"UnderstandingBenchmark"}
"""Benchmarks that measure answers to questions about a given picture (data/shapes/understanding.jsonl)."""
READS_NO_PICTURES = {"DenseModel"}
"""Backbones without a vision encoder: they must say so."""
LOOKS = {"Answering", "Editing", "SelfReflection"}
"""Tasks that look at pictures."""


def walk() -> None:
    """Imports every module of the package."""
    for module in pkgutil.walk_packages(project.__path__, "project."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def concrete(family: type) -> list[type]:
    """Every class of the family that can be made, of the package and of tests/helpers/backbones.py."""

    def below(cls: type) -> Iterator[type]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    homes = ("project.", "tests.helpers.backbones")
    ours = {c for c in (family, *below(family)) if c.__module__.startswith(homes)}
    return sorted((c for c in ours if not inspect.isabstract(c)), key=lambda c: c.__qualname__)


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to make one class; no arguments = nobody gave an example."""

    cls: type
    family: type
    arguments: dict[str, Any] | None

    def make(self, **known: Any) -> Any:
        """As YAML would make it."""
        if self.arguments is None:
            needed = ", ".join(name for name, p in parameters(self.cls).items() if p.default is p.empty)
            pytest.fail(
                f"{self.cls.__name__} needs {needed}: add an example to ARGUMENTS of {Path(__file__).name}, "
                f'"{self.cls.__name__}": [{{"{needed.partition(",")[0]}": ...}}]'
            )
        values = yaml.safe_load(yaml.safe_dump(self.arguments))
        return made(self.family, f"{self.cls.__module__}.{self.cls.__qualname__}", filled(values, known))


def made(family: type, class_path: str, arguments: dict[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=family, required=True)
    parsed = parser.parse_object({"made": {"class_path": class_path, "init_args": arguments}})
    return parser.instantiate(parsed).made


def filled(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, known) for inner in value]
    if isinstance(value, str) and value.startswith("$"):
        return known[value[1:]]
    return value


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of the constructor."""
    found = dict(inspect.signature(cls).parameters)
    return {name: p for name, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def cases(family: type) -> list[Any]:
    found = []
    for cls in concrete(family):
        required = any(p.default is p.empty for p in parameters(cls).values())
        examples = ARGUMENTS.get(cls.__name__, [None if required else {}])
        found += [
            pytest.param(Case(cls, family, arguments), id=f"{cls.__name__}{n or ''}")
            for n, arguments in enumerate(examples)
        ]
    return found


walk()
CLASSES = [pytest.param(cls, family, id=cls.__name__) for family in FAMILIES for cls in concrete(family)]


# --------------------------------------------------------------------- every class


def test_every_family_has_members() -> None:
    for family in FAMILIES:
        assert concrete(family), f"no {family.__name__} was found: does the walk still see the package?"
    names = [cls.__name__ for family in FAMILIES for cls in concrete(family)]
    assert len(names) == len(set(names)), "two classes of one name: ARGUMENTS could not tell them apart"
    assert set(ARGUMENTS) <= set(names), f"ARGUMENTS names classes that are gone: {set(ARGUMENTS) - set(names)}"


@pytest.mark.parametrize("cls, family", CLASSES)
def test_it_lives_in_a_file_of_its_own(cls: type, family: type) -> None:
    if cls.__module__ == "tests.helpers.backbones":
        return
    beside = [other for other in concrete(family) if other.__module__ == cls.__module__]
    assert beside == [cls], f"{cls.__module__} holds several: give each a file of its own"
    package = PLACES[family].format(family=family.__name__.lower())
    # The embedded world keeps its own; a reward that is made of benchmarks stands in their room.
    allowed = (f"project.{package}.", "project.shapes.", *(["project.benchmarks."] if family is Reward else []))
    assert cls.__module__.startswith(allowed), f"{cls} belongs into project/{package}"


def documented(cls: type) -> set[str]:
    """Arguments that the docstring of a class names."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].split("\n\n")[0]
    return {name.strip() for line in re.findall(r"^    ([\w, ]+):", section, re.MULTILINE) for name in line.split(",")}


@pytest.mark.parametrize("cls, family", CLASSES)
def test_every_argument_is_documented(cls: type, family: type) -> None:
    if cls.__module__ == "tests.helpers.backbones":
        return
    assert cls.__doc__, f"{cls.__name__} has no docstring"
    named, own = set(parameters(cls)), documented(cls)
    # What a parent class tells of an argument need not be told again.
    inherited = set().union(*(documented(parent) for parent in cls.__mro__[1:]))
    assert own <= named <= own | inherited, f"{cls.__name__}: Args: of the docstring and of the constructor differ"


@pytest.mark.parametrize("cls, family", [p for p in CLASSES if p.values[1] is not UnifiedModel])
def test_no_argument_is_hidden_from_yaml(cls: type, family: type) -> None:
    """An argument without a type, or behind **kwargs, cannot be checked before a run."""
    for name, parameter in inspect.signature(cls).parameters.items():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), f"{cls.__name__}: *{name}"
        assert parameter.annotation is not parameter.empty, f"{cls.__name__}: {name} has no type"
    with pytest.raises(Exception, match="no_such_argument"):
        made(family, f"{cls.__module__}.{cls.__qualname__}", {"no_such_argument": 1})


# --------------------------------------------------------------------- what the tests feed


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, prompts: list[Prompt]) -> dict[str, Any]:
    """Folders with a tiny checkpoint, its autoencoder and tiny networks that look at pictures; a file of detections,
    and one of questions about the prompts."""
    autoencoder, checkpoint, vlm = (tmp_path_factory.mktemp(name) for name in ("autoencoder", "checkpoint", "vlm"))
    geneval = tmp_path_factory.mktemp("geneval")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        PatchAutoencoder(PatchAutoencoderConfig(width=8, num_res_blocks=1)).save(autoencoder)
    new = importlib.import_module("project.shapes.umm").NewEmbeddedModel
    new(**{**ARGUMENTS["NewEmbeddedModel"][0], "autoencoder": str(autoencoder)}).load().save_pretrained(checkpoint)
    tiny_vlms.write_tiny_vlm(vlm, "qwen3_vl")
    return {
        "autoencoder": str(autoencoder),
        "checkpoint": str(checkpoint),
        "vlm": str(vlm),
        "mask2former": tiny_geneval.write_tiny_mask2former(geneval / "mask2former"),
        "clip": tiny_geneval.write_tiny_clip(geneval / "clip"),
        "detections": str(tiny_benchmarks.write_detections(geneval / "detections.jsonl")),
        "table": str(all_published.write_dpg(geneval / "dpg", prompts)),
    }


@pytest.fixture(scope="module")
def models(known: dict[str, Any]) -> dict[str, UnifiedModel]:
    """The model of every source, with weights that leave no path unused (new models may start with zeros)."""
    loaded = {}
    for parameter in cases(ModelSource):
        model = parameter.values[0].make(**known).load()
        generator = torch.Generator().manual_seed(0)
        for weight in model.parameters():
            if weight.ndim > 1 and weight.requires_grad:
                weight.data.normal_(std=0.15, generator=generator)
        loaded[parameter.id] = model
    return loaded


@pytest.fixture(params=[p.id for p in cases(ModelSource)])
def model(request: pytest.FixtureRequest, models: dict[str, UnifiedModel]) -> UnifiedModel:
    return models[request.param]


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """One prompt of each set of the embedded world."""
    return read_prompts(ROOT / "data/shapes/eval.jsonl")[3::520]


@pytest.fixture(scope="module")
def trajectories(prompts: list[Prompt]) -> list[Trajectory]:
    """Two samples of each prompt: its scene as it should be, and an empty picture."""
    rng = np.random.default_rng(0)
    return shown(prompts, [sample_layout(rng, Scene.from_dict(prompt.columns["scene"])) for prompt in prompts])


@pytest.fixture(scope="module")
def edits() -> list[Trajectory]:
    """The same for instructions of every kind."""
    prompts = read_prompts(ROOT / "data/shapes/edit.jsonl")[::89]
    wanted = [apply(edit.change, edit.source)[0] for edit in map(edit_of, prompts)]
    return shown(prompts, wanted)


@pytest.fixture(scope="module")
def answers() -> list[Trajectory]:
    """Two answers to a question of each set: the right one, and none."""
    prompts = read_prompts(ROOT / "data/shapes/understanding.jsonl")[:5]
    given = shown(prompts, [Layout.from_dict(prompt.columns["layout"]) for prompt in prompts])
    return [
        dataclasses.replace(
            t,
            source=t.image,
            segments=(dataclasses.replace(t.texts[0], text=str(t.prompt.columns["answer"]) if right else "no idea ?"),),
        )
        for t, right in zip(given, itertools.cycle([True, False]), strict=False)
    ]


def shown(prompts: list[Prompt], layouts: list[Layout]) -> list[Trajectory]:
    made = []
    for prompt, picture in zip(prompts, render_all(layouts), strict=True):
        for sample, pixels in enumerate((picture, np.full_like(picture, 255))):
            nothing = torch.zeros(0)
            image = ImageSegment(
                latents_KLD=torch.zeros(0, 1, 1),
                next_KLD=torch.zeros(0, 1, 1),
                step_K=nothing.long(),
                log_prob_K=nothing,
                final_LD=torch.zeros(1, 1),
                pixels_HWC=torch.from_numpy(pixels.copy()),
            )
            text = TextSegment(
                ids_T=torch.arange(2), log_prob_T=-torch.ones(2), entropy_T=torch.ones(2), finished=True, text="a b"
            )
            key = SampleKey(seed=0, update=0, prompt=prompt.id, sample=sample)
            made.append(Trajectory(prompt=prompt, key=key, segments=(text, image)))
    return made


# --------------------------------------------------------------------- samplers


@pytest.mark.parametrize("case", cases(Transition))
def test_a_transition_evaluates_what_it_takes(case: Case) -> None:
    transition = case.make()
    sampler = sde(6, transition=transition)
    x, v, other_v, noise = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    stochastic = []
    for step in range(sampler.evaluations):
        step_R = torch.full((3,), step)
        dt = sampler.sigma_N[step + 1] - sampler.sigma_N[step]
        torch.testing.assert_close(sampler.euler(x, v, step_R), x + dt * v)
        taken = sampler.sample(x, v, step_R, noise)
        assert all(getattr(taken, f.name).dtype == torch.float32 for f in dataclasses.fields(taken))
        torch.testing.assert_close(taken.dt_R, dt.expand(3))
        torch.testing.assert_close(taken.next_RLD, taken.mean_RLD + taken.std_R[:, None, None] * noise)
        if (taken.std_R == 0).all():
            assert taken.log_prob_R.isnan().all(), "a deterministic step has no density"
            with pytest.raises(ValueError, match="deterministic"):
                sampler.log_prob(x, v, step_R, taken.next_RLD)
            torch.testing.assert_close(taken.mean_RLD, sampler.euler(x, v, step_R), atol=1e-5, rtol=1e-5)
            continue
        stochastic.append(step)
        again = sampler.log_prob(x, v, step_R, taken.next_RLD)
        assert torch.equal(again.log_prob_R, taken.log_prob_R), "rollout and replay must agree to the bit"
        expected = -(noise**2).mean((1, 2)) / 2
        torch.testing.assert_close(again.log_prob_R, expected, atol=1e-3, rtol=1e-3)
        assert not torch.equal(sampler.log_prob(x, other_v, step_R, taken.next_RLD).log_prob_R, taken.log_prob_R)
    if sampler.trains:
        assert stochastic == list(range(transition.stochastic(sampler.sigma_N))), "a window must be trainable"


@pytest.mark.parametrize("case", cases(Schedule))
def test_a_schedule_falls_from_noise_to_data(case: Case) -> None:
    sigma_N = case.make().sigma_N
    assert sigma_N[0] == 1 and sigma_N[-1] == 0 and bool((sigma_N.diff() < 0).all())
    assert sigma_N.dtype == torch.float32 and len(sigma_N) == case.make().evaluations + 1


@pytest.mark.parametrize("case", cases(Window))
def test_a_window_lies_where_it_may_and_is_the_same_for_every_rank(case: Case) -> None:
    window = case.make()
    lo, hi, size = window.fitted(6)
    drawn = [window.steps(6, at(1, update, prompt="a", sample=0)) for update in range(50)]
    assert drawn == [window.steps(6, at(1, update, prompt="a", sample=5)) for update in range(50)], "shared by a group"
    assert all(lo <= min(steps) and max(steps) < hi and len(steps) == size for steps in drawn)
    assert all(list(steps) == sorted(set(steps)) for steps in drawn)
    assert {tuple(steps) for steps in drawn} <= {tuple(steps) for steps in window.places(6)}


# --------------------------------------------------------------------- objectives


@pytest.fixture(scope="module")
def group() -> Group:
    """Six samples of two prompts by the dense backbone, with advantages; one of them does not count."""
    model = backbones.NewDenseModel().load()
    prompts = [Prompt(id="a", text="a red circle"), Prompt(id="b", text="two green square")]
    keys = [SampleKey(seed=0, update=0, prompt=p.id, sample=g) for p in prompts for g in range(3)]
    (drawn,) = roll(dense_task(), model, prompts, keys, sde(5), range(1, 3))
    valid_N = torch.tensor([True, True, False, True, True, True])
    advantage_N = torch.linspace(-1, 1.5, 6) * valid_N
    return dataclasses.replace(drawn, advantages=Advantages(image_N=advantage_N, text_N=-advantage_N, valid_N=valid_N))


def dense_task() -> ReasoningT2I:
    return ReasoningT2I(height=8, width=8, max_tokens=5, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))


OBJECTIVES = [*cases(Objective), *cases(Part)]


def objective_of(case: Case) -> Objective:
    """An objective as it is, a part of one as an objective of nothing else."""
    made = case.make()
    if isinstance(made, ImagePenalty):
        return Joint(image=Nothing(), image_penalty=made)
    if isinstance(made, TextPenalty):
        return Joint(image=Nothing(), text_penalty=made)
    if isinstance(made, ImagePart):
        return Joint(image=made)
    return Joint(text=made) if isinstance(made, TextPart) else made


class Nothing(ImagePart):
    """A part without a loss."""

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        return LossOutputs(loss=torch.zeros(()))


def losses(objective: Objective, group: Group, size: int, world_size: int = 1) -> tuple[list[Any], Any]:
    """Outputs per micro-batch, and the gradient of their sum."""
    model, reference = (backbones.NewDenseModel(seed).load() for seed in (0, 1))
    outputs = []
    for batch in group.micro_batches(size):
        replay = dense_task().replay(model, batch.trajectories, sde(5), context_gradient=True)
        if objective.needs.rollout_means:
            replay = dataclasses.replace(replay, old_mean_RKLD=replay.mean_RKLD.detach())
        if objective.needs.reference:
            with torch.no_grad():
                other = dense_task().replay(reference, batch.trajectories, sde(5), context_gradient=True)
            replay = dataclasses.replace(replay, reference=other)
        outputs.append(
            objective(
                LossInputs(
                    replay=replay,
                    image_advantage_B=batch.image_advantage_B,
                    text_advantage_B=batch.text_advantage_B,
                    counts=objective.count([group], world_size=world_size),
                    first=True,
                    keys=[trajectory.key for trajectory in batch.trajectories],
                )
            )
        )
    sum(output.loss for output in outputs).backward()
    return outputs, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", OBJECTIVES)
def test_an_objective_is_one_loss_however_it_is_cut(case: Case, group: Group) -> None:
    objective = objective_of(case)
    counts = objective.count([group])
    kept = [t for t, valid in zip(group.trajectories, group.advantages.valid_N, strict=True) if valid]
    assert counts.samples == counts.sequences == 5 and counts.steps == 5 * 2
    assert counts.tokens == sum(len(t.texts[0].ids_T) for t in kept)
    doubled = objective.count([group], world_size=2, reduce=lambda tensor: 2 * tensor)
    assert (doubled.samples, doubled.tokens, doubled.world_size) == (10, 2 * counts.tokens, 2)

    whole, gradient = losses(objective, group, size=100)
    parts, in_parts = losses(objective, group, size=2)
    assert len(whole) == 1 and len(parts) == 3
    assert whole[0].loss.isfinite()
    torch.testing.assert_close(sum(output.loss for output in parts), whole[0].loss, atol=1e-6, rtol=1e-5)
    assert any(g.abs().max() > 0 for g in gradient.values()), "the loss moves no parameter"
    for name, expected in gradient.items():
        assert expected.isfinite().all(), name
        torch.testing.assert_close(in_parts[name], expected, atol=1e-6, rtol=1e-3, msg=name)
    for name, mean in whole[0].metrics.items():
        first, *others = (output.metrics[name] for output in parts)
        total = sum(others, first).value
        torch.testing.assert_close(total, mean.value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_an_objective_counts_ranks_and_tells_the_gate(case: Case, group: Group) -> None:
    objective = objective_of(case)
    (alone,), _ = losses(objective, group, size=100)
    (of_two,), _ = losses(objective, group, size=100, world_size=2)
    torch.testing.assert_close(of_two.loss, 2 * alone.loss)
    errors = {name: value for name, value in alone.maxima.items() if name.startswith("ratio_error/")}
    clips = [kind for kind in ("image", "text") if getattr(objective.clip_widths, kind) is not None]
    assert {f"ratio_error/{kind}" for kind in clips} == set(errors), "the on-policy gate is blind to what is not told"
    assert all(value <= 1e-5 for value in errors.values()), "nothing was trained in between: every ratio is 1"


# --------------------------------------------------------------------- rewards, judges, decomposers


@pytest.mark.parametrize("case", cases(Reward))
def test_a_reward_scores_every_sample(
    case: Case,
    trajectories: list[Trajectory],
    prompts: list[Prompt],
    known: dict[str, Any],
    scorer: str,
    tmp_path: Path,
) -> None:
    reward = case.make(**known, scorer=scorer, folder=str(tmp_path))
    assert reward.check(prompts) is None and reward.preflight() is None
    output = reward.score(trajectories)
    assert output.reward_N.shape == (len(trajectories),) and output.reward_N.is_floating_point()
    assert output.well_formed_N is None or output.well_formed_N.shape == output.reward_N.shape
    assert not output.reward_N.isinf().any(), "what cannot be scored is NaN"
    assert all(isinstance(metric, Mean | Sum) for metric in output.metrics.values())
    if output.confidence_NQ is not None:
        assert [len(row) for row in output.confidence_NQ] == [len(t.prompt.questions) for t in trajectories]
    again = reward.score(trajectories)
    torch.testing.assert_close(again.reward_N, output.reward_N, equal_nan=True)
    # Samples do not see each other: the last ones alone score what they scored in company.
    torch.testing.assert_close(reward.score(trajectories[-2:]).reward_N, output.reward_N[-2:], equal_nan=True)
    whole = within_groups(reward, trajectories)
    assert whole.shape == output.reward_N.shape
    # Nor do groups, and other ranks may have some of a group's samples.
    torch.testing.assert_close(within_groups(reward, trajectories[-2:]), whole[-2:], equal_nan=True)
    torch.testing.assert_close(within_groups(reward, trajectories, parts=(3, 1)), whole, equal_nan=True)
    scores = score(trajectories, [reward])
    weighted = reward.weight * output.reward_N
    torch.testing.assert_close(scores.text_reward_N if reward.text_only else scores.reward_N, weighted, equal_nan=True)


def within_groups(reward: Reward, trajectories: list[Trajectory], parts: Sequence[int] = ()) -> torch.Tensor:
    """The rewards within groups of two, of samples that are scored in parts of these sizes (and the rest)."""
    scorer, start, pending = Scorer([reward]), 0, []
    for stop in (*itertools.accumulate(parts), len(trajectories)):
        pending.append(scorer(trajectories[start:stop]))
        start = stop
    scores = scorer.collect(Group(trajectories=tuple(trajectories), size=2, pending=tuple(pending)))
    return (scores.text_reward_N if reward.text_only else scores.reward_N) / (reward.weight or 1.0)


@pytest.mark.parametrize("case", cases(Reward))
def test_a_reward_keeps_its_weight_and_what_it_counts_for(case: Case, known: dict[str, Any], scorer: str) -> None:
    given = {name: value for name, value in {"weight": 0.25, "text_only": True}.items() if name in parameters(case.cls)}
    assert "weight" in given
    wanted = dataclasses.replace(case, arguments={**(case.arguments or {}), **given})
    reward = wanted.make(**known, scorer=scorer, folder="cache")
    assert {name: getattr(reward, name) for name in given} == given


@pytest.fixture(scope="module")
def scorer() -> Iterator[str]:
    with chat_server.ScoreServer() as running:
        yield running.url


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with chat_server.ChatServer(writer=tiny_benchmarks.written) as running:
        yield running.url


@pytest.mark.parametrize("case", cases(Judge))
def test_a_judge_answers_every_question_or_says_that_it_cannot(
    case: Case, trajectories: list[Trajectory], known: dict[str, Any], server: str, tmp_path: Path
) -> None:
    judge = case.make(**known, server=server, folder=str(tmp_path))
    assert isinstance(judge.name, str) and judge.name
    assert judge.preflight() is None
    pictures = [t.image.pixels_HWC.numpy() for t in trajectories]
    questions, texts = [t.prompt.questions for t in trajectories], [t.prompt.text for t in trajectories]
    answers = judge.answer(pictures, questions, texts)
    assert [len(row) for row in answers] == [len(asked) for asked in questions]
    given = [value for row in answers for value in row if value is not None]
    assert given, "not one question was answered"
    assert all(0 <= value <= 1 for value in given)
    assert judge.answer([], [], []) == []
    assert judge.answer(pictures[:1], [()], texts[:1]) == [[]]
    with pytest.raises(ValueError):
        judge.answer(pictures, questions[:1], texts)


@pytest.mark.parametrize("case", cases(TextJudge))
def test_a_judge_of_texts_answers_every_question_or_says_that_it_cannot(
    case: Case, prompts: list[Prompt], server: str
) -> None:
    judge = case.make(server=server)
    assert isinstance(judge.name, str) and judge.name
    assert judge.preflight() is None
    texts, about = ["<think> the circle is red not blue </think>", ""], [prompt.text for prompt in prompts[:2]]
    answers = judge.answer_texts(texts, [CLARIFY, "is it a poem ?"], about)
    assert [len(row) for row in answers] == [2, 2]
    given = [value for row in answers for value in row if value is not None]
    assert given and all(0 <= value <= 1 for value in given)
    assert judge.answer_texts([], [CLARIFY], []) == []
    assert judge.answer_texts(texts, [], about) == [[], []]
    assert all(isinstance(metric, Mean | Sum) for metric in judge.metrics().values())
    with pytest.raises(ValueError):
        judge.answer_texts(texts, [CLARIFY], about[:1])


@pytest.mark.parametrize("case", cases(ShortAnswerJudge))
def test_a_judge_gives_every_short_answer_a_probability_or_says_that_it_cannot(
    case: Case, server: str, tmp_path: Path
) -> None:
    judge = case.make(server=server, folder=str(tmp_path))
    assert isinstance(judge.name, str) and judge.name
    assert judge.preflight() is None
    images = [np.full((side, 48, 3), side, dtype=np.uint8) for side in (32, 64)]
    answers = [[ShortAnswer(question="Is it grey?", spellings=(word,)) for word in ("yes", "no")], []]
    found = judge.probabilities(images, answers)
    assert [len(row) for row in found] == [2, 0]
    assert all(value is not None and 0 <= value <= 1 for value in found[0])
    assert judge.probabilities(images, answers) == found and judge.probabilities([], []) == []
    assert all(isinstance(metric, Mean | Sum) for metric in judge.metrics().values())
    with pytest.raises(ValueError):
        judge.probabilities(images, answers[:1])


@pytest.mark.parametrize("case", cases(FreeTextJudge))
def test_a_judge_that_writes_answers_every_request_or_says_that_it_cannot(
    case: Case, known: dict[str, Any], server: str, tmp_path: Path
) -> None:
    judge = case.make(**known, server=server, folder=str(tmp_path))
    assert isinstance(judge.name, str) and judge.name
    assert judge.preflight() is None
    small, large = (np.full((side, 48, 3), side, dtype=np.uint8) for side in (32, 64))
    sent = [
        FreeTextRequest(text="Score it.", pictures=(small,)),
        FreeTextRequest(text="Compare them.", pictures=(small, large)),
        FreeTextRequest(text="Say yes."),
        FreeTextRequest(text="Score it.", pictures=(large,), attempt=1),
    ]
    written = judge.write(sent)
    assert len(written) == 4 and any(written), "not one request was answered"
    assert all(answer is None or isinstance(answer, FreeText) for answer in written)
    assert judge.write(sent) == written, "equal requests, equal answers"
    assert judge.write([]) == []
    assert all(isinstance(metric, Mean | Sum) for metric in judge.metrics().values())
    with pytest.raises(ValueError):
        judge.write([FreeTextRequest(text="Score it.", pictures=(small[..., 0],))])


@pytest.mark.parametrize("case", cases(Decomposer))
def test_a_decomposer_writes_questions_that_a_reward_can_use(case: Case, prompts: list[Prompt]) -> None:
    with llm_server.LLMServer() as server:
        decomposer = case.make(llm=server.url)
        assert isinstance(decomposer.name, str) and decomposer.name
        assert decomposer.preflight() is None
        check_decomposer(decomposer, prompts)
        decomposer.close()


def check_decomposer(decomposer: Decomposer, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        questions = decomposer.decompose(prompt.text)
        kinds = [question.kind for question in questions]
        assert kinds == sorted(kinds, key=("semantic", "quality").index) and kinds[0] == "semantic"
        assert all(question.text.strip() for question in questions)
        for place, question in enumerate(questions):
            assert all(0 <= other < len(questions) and other != place for other in question.depends_on)
        assert decomposer.decompose(prompt.text) == questions


# --------------------------------------------------------------------- tasks


@pytest.mark.parametrize("case", cases(EvaluationTask))
def test_a_task_replays_what_it_rolled_out(case: Case, model: UnifiedModel) -> None:
    task = case.make(height=model.defaults.height, width=model.defaults.width)
    if case.cls.__name__ in LOOKS and type(model).__name__ in READS_NO_PICTURES:
        pytest.skip(f"{type(model).__name__} reads no pictures, which {case.cls.__name__} needs")
    sampler = sde(7, 2, (0, 4))
    steps = sampler.steps(at(0, 0))
    prompts = [Prompt(id="a", text="a red circle"), Prompt(id="b", text="a green square left of a red circle")]
    keys = [SampleKey(seed=0, update=0, prompt=p.id, sample=g) for p in prompts for g in range(2)]
    stopwatch = Stopwatch()
    score = Scorer([RandomReward()])
    if not isinstance(task, Task):
        with pytest.raises(ValueError, match="evaluation"):
            roll(task, model, prompts, keys, sampler, steps, score)
    else:
        groups = roll(task, model, prompts, keys, sampler, steps, score, stopwatch)
        assert stopwatch.seconds
        for group in groups:
            assert group.size == 2 and [t.key for t in group.trajectories] == keys
            assert [t.prompt.id for t in group.trajectories] == ["a", "a", "b", "b"]
            assert len(score.collect(group).reward_N) == 4
            replays_what_was_drawn(task, model, [t for t in group.trajectories if t.segments], sampler, steps)
    evaluated = roll(task, model, prompts, keys[::2], sampler, None, score)
    assert all(len(t.image.step_K) == 0 for group in evaluated for t in group.trajectories), "nothing is stochastic"
    assert all(group.size == 1 and len(group) == 2 for group in evaluated)


def replays_what_was_drawn(
    task: Task, model: UnifiedModel, drawn: list[Trajectory], sampler: Any, steps: range
) -> None:
    for t in drawn:
        assert t.image.pixels_HWC.dtype == torch.uint8
        assert t.image.pixels_HWC.shape == (model.defaults.height, model.defaults.width, 3)
        assert all(image.step_K.tolist() == list(steps) for image in t.images)
    replay = task.replay(model, drawn, sampler, context_gradient=True)
    assert replay.image_log_prob_RK.requires_grad
    assert replay.image_sample_R.tolist() == [n for n, t in enumerate(drawn) for _ in t.images]
    image = (replay.image_log_prob_RK - replay.old_image_log_prob_RK)[replay.step_mask_RK]
    text = (replay.text_log_prob_RT - replay.old_text_log_prob_RT)[replay.token_mask_RT]
    assert image.numel() == sum(len(i.step_K) for t in drawn for i in t.images)
    assert text.numel() == sum(len(s.ids_T) for t in drawn for s in t.texts)
    assert torch.expm1(torch.cat([image, text])).abs().max() <= 1e-5


# --------------------------------------------------------------------- benchmarks


@pytest.mark.parametrize("case", cases(Benchmark))
def test_a_benchmark_measures_every_prompt(
    case: Case,
    trajectories: list[Trajectory],
    edits: list[Trajectory],
    answers: list[Trajectory],
    known: dict[str, Any],
) -> None:
    benchmark = case.make(**known)
    others = {**dict.fromkeys(EDITS, edits), **dict.fromkeys(ANSWERS, answers)}
    trajectories = others.get(case.cls.__name__, trajectories)
    assert benchmark.name and benchmark.name == benchmark.name.lower() and benchmark.latest is None
    shown = trajectories[::2]
    rewards = [None, *[0.5] * (len(shown) - 1)]
    outcomes = benchmark.measure(shown, rewards)
    assert len(outcomes) == len(shown)
    assert [outcome["reward"] for outcome in json.loads(json.dumps(outcomes))] == rewards
    own = [benchmark.reward] if benchmark.reward else []
    benchmark.update(Group(trajectories=tuple(shown), size=1), own)
    figures = flatten(benchmark.figures(), benchmark.name)
    assert figures and all(math.isfinite(value) for value in figures.values())
    # Prompts that only fill up a batch change nothing.
    empty = trajectories[-1]
    filler = dataclasses.replace(empty.prompt, padding=True)
    benchmark.update(Group(trajectories=(dataclasses.replace(empty, prompt=filler),), size=1), own)
    assert flatten(benchmark.figures(), benchmark.name) == figures
    benchmark.reset()
    benchmark.update(Group(trajectories=tuple(trajectories[1::2]), size=1), own)
    assert flatten(benchmark.figures(), benchmark.name) != figures, "empty pictures measure the same"


# --------------------------------------------------------------------- benchmarks of pictures in folders


@pytest.mark.parametrize("case", cases(Detector))
def test_a_detector_finds_objects_or_says_that_it_does_not_work(case: Case, known: dict[str, Any]) -> None:
    detector = case.make(**known)
    assert isinstance(detector.label, str) and detector.label and isinstance(detector.source, str) and detector.source
    try:
        assert detector.preflight() is None
    except ValueError as error:  # Random weights do not pass a self-test.
        assert "known photograph" in str(error)
    images = [np.full((side, 48, 3), side, dtype=np.uint8) for side in (32, 64)]
    names = ["00000/0", "00001/1"]
    found = detector.detect(images, names)
    assert len(found) == 2 and any(found), "nothing was found at all"
    for image, detections in zip(images, found, strict=True):
        for one in detections:
            x0, y0, x1, y1 = one.box
            assert 0 <= x0 <= x1 <= image.shape[1] and 0 <= y0 <= y1 <= image.shape[0]
            assert 0 <= one.score <= 1 and one.class_name
            assert one.mask_HW is None or one.mask_HW.shape == image.shape[:2]
    assert detector.detect(images, names) == found and detector.detect([], []) == []
    assert detector.detect(images[1:], names[1:]) == found[1:], "pictures do not see each other"
    with pytest.raises(ValueError):
        detector.detect(images, names[:1])


@pytest.mark.parametrize("case", cases(ColorClassifier))
def test_a_classifier_names_a_colour_of_every_object(case: Case, known: dict[str, Any]) -> None:
    classifier = case.make(**known)
    assert isinstance(classifier.label, str) and classifier.label
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    boxes = [(0.0, 0.0, 30.0, 40.0), (20.0, 10.0, 64.0, 48.0)]
    objects = [Detection(class_name="cup", box=box, score=0.9) for box in boxes]
    named = classifier.colors(image, objects)
    assert len(named) == 2 and set(named) <= set(COLORS)
    assert classifier.colors(image, objects[1:]) == named[1:] and classifier.colors(image, []) == []


@pytest.mark.parametrize("case", cases(PictureBenchmark))
def test_a_benchmark_of_pictures_judges_every_picture_that_it_asks_for(
    case: Case, known: dict[str, Any], server: str, tmp_path: Path
) -> None:
    benchmark = case.make(**known, server=server)
    writer = tiny_benchmarks.OFFICIAL.get(case.cls.__name__)
    if writer is None:
        pytest.fail(
            f"nobody writes a small official file of {case.cls.__name__}: add who does to OFFICIAL of "
            "tests/helpers/tiny_benchmarks.py"
        )
    read = benchmark.read_items(official_file(writer, tmp_path, case.arguments or {}))
    items = read.items
    assert len(items) > 1 and len({item.id for item in items}) == len(items)
    assert re.fullmatch(r"[0-9a-f]{64}", read.sha256) and read.version is None
    assert all(isinstance(item.id, str) and item.id and benchmark.prompt(item).strip() for item in items)

    asked: list[tuple[Any, Picture]] = []
    images: list[np.ndarray] = []
    for item in items:
        for sample in range(benchmark.samples):
            side = 32 + 8 * (len(images) % 2) * benchmark.mixed_sizes
            images.append(score_runs.grey(7 * len(images) % 256, side))
            score_runs.save(images[-1], tmp_path / f"pictures/{benchmark.place(item, sample)}.png")
        asked += [(item, picture) for picture in benchmark.pictures(tmp_path / "pictures", item)]
        source = benchmark.source(item)
        assert source is None or (source.dtype == np.uint8 and source.ndim == 3)
    files = [picture.file for _, picture in asked]
    assert len(set(files)) == len(images), "a picture lies where it is looked for, and nowhere else"
    assert all(np.array_equal(read_picture(file), image) for file, image in zip(files, images, strict=True))
    assert [(picture.item, picture.sample) for _, picture in asked] == [
        (item.id, sample) for item in items for sample in range(benchmark.samples)
    ]
    nowhere = benchmark.pictures(tmp_path / "empty", items[0])
    assert [picture.file for picture in nowhere] == [None] * benchmark.samples and all(p.tried for p in nowhere)

    assert benchmark.preflight(items) is None
    made_by = benchmark.made_by()
    assert made_by and all(isinstance(value, str) and value for value in made_by.values())
    found = benchmark.judge(images, *map(list, zip(*asked, strict=True)))
    assert all(isinstance(one, dict) for one in found) and len(found) == len(images), found
    assert json.loads(json.dumps(found)) == found, "rows are JSON"
    assert any(row != found[0] for row in found), "the pictures make no difference"
    assert benchmark.judge(images[:1], [asked[0][0]], [asked[0][1]]) == found[:1], "pictures do not see each other"
    rows = [
        {"id": picture.item, "sample": picture.sample, **row} for (_, picture), row in zip(asked, found, strict=True)
    ]
    worths = [benchmark.worth(item, row) for (item, _), row in zip(asked, rows, strict=True)]
    assert all(isinstance(worth, float) and 0 <= worth <= 1 for worth in worths)
    for (item, _), row in zip(asked, rows, strict=True):
        lines = benchmark.told(item, row)
        assert lines and all(line.strip() and "\n" not in line and len(line) < 200 for line in lines)
    for mode in MODES:
        whole = benchmark.score(items, rows, mode)
        assert whole.coverage.expected in (len(items), len(images)), "items or pictures"
        assert whole.coverage.complete or mode == "official", "an official script may drop something"
        assert whole.headline is None or 0 <= whole.headline <= 1
        assert json.loads(json.dumps(whole.figures)) == dict(whole.figures)
        assert len(whole.table) > 1 and len({len(cells) for cells in whole.table}) == 1
        assert benchmark.score(items, rows[::-1], mode).coverage == whole.coverage
        nothing = benchmark.score(items, [], mode)
        assert nothing.coverage.scored == 0 and nothing.headline is None
        part = benchmark.score(items, rows[benchmark.samples :], mode)
        assert {name.removeprefix(items[0].id)[:1] for name in part.coverage.missing} in ({""}, {"/"})
        one = benchmark.score(items[:1], rows[: benchmark.samples], mode)
        assert one.coverage.complete or mode == "official", "--limit 1"


def official_file(writer: Any, folder: Path, arguments: dict[str, Any]) -> Path:
    """A small official file, of the edition that the benchmark is made for, where there are several."""
    edition = {"edition": arguments["edition"]} if "edition" in arguments else {}
    path: Path = writer(folder / "items", **edition)
    return path


@pytest.mark.parametrize("cls", concrete(PictureBenchmark))
def test_the_command_offers_what_a_benchmark_of_pictures_takes(cls: type[PictureBenchmark[Any]]) -> None:
    parser = command_parser("score", ["--benchmark", cls.name()])
    offered = {name.removeprefix("--") for name in parser._option_string_actions}
    assert set(parameters(cls)) <= offered


# --------------------------------------------------------------------- models


@pytest.mark.parametrize("case", cases(ModelSource))
def test_a_source_makes_the_same_model_every_time(case: Case, known: dict[str, Any]) -> None:
    source = case.make(**known)
    before = torch.random.get_rng_state()
    one, two = source.load(), source.load()
    assert torch.equal(torch.random.get_rng_state(), before), "loading a model must leave the run's randomness alone"
    assert isinstance(one, UnifiedModel)
    assert one.state_dict().keys() == two.state_dict().keys() and len(one.state_dict())
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_every_model_has_a_source(models: dict[str, UnifiedModel]) -> None:
    sourceless = set(concrete(UnifiedModel)) - {type(model) for model in models.values()}
    assert not sourceless, f"no ModelSource makes {sourceless}: YAML could not name it, and nothing here tests it"


TEXTS = ["a red circle", "a green square left of a red circle"]
GUIDANCE = Guidance(text=2.0, interval=(0.0, 1.0))


def read(model: UnifiedModel, kind: str, texts: list[str], pictures: torch.Tensor | None = None) -> Contexts:
    """What guidance reads, in a context of one kind: system prompt; then text, a picture and drawn latents."""
    rows = len(texts)
    empty = model.static_context(rows, 120) if kind == "static" else model.functional_context(rows)
    free = model.append_text(empty, [model.encode_text(model.defaults.think_prompt)] * rows)
    every_row = torch.arange(rows)
    main = model.append_text(free.select(every_row, room=100), [model.encode_text(text) for text in texts])
    if pictures is not None:
        if type(model).__name__ not in READS_NO_PICTURES:
            main = model.append_picture(main, list(pictures))
        main = model.append_latents(main, model.encode_image(pictures), model.latent_grid(*pictures.shape[-2:]))
    return Contexts(main=main, text_free=free.select(every_row, room=60))


def picture(model: UnifiedModel, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 3, model.defaults.height, model.defaults.width, generator=generator) * 2 - 1


def noised(model: UnifiedModel, rows: int = 2, steps: int = 3) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    grid = model.latent_grid(model.defaults.height, model.defaults.width)
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(rows, steps, grid[0] * grid[1], model.latent_size, generator=generator),
        torch.linspace(0.9, 0.2, steps),
        grid,
    )


@pytest.mark.parametrize("with_picture", [False, True], ids=["text", "picture"])
@torch.no_grad()
def test_both_kinds_of_context_say_the_same(model: UnifiedModel, with_picture: bool) -> None:
    pictures = picture(model) if with_picture else None
    static, functional = (read(model, kind, TEXTS, pictures) for kind in ("static", "functional"))
    assert torch.equal(static.main.position_R, functional.main.position_R)
    x, sigma, grid = noised(model)
    per_step = [model.velocity(x[:, k : k + 1], sigma[k : k + 1], static, GUIDANCE, grid) for k in range(3)]
    together = model.velocity(x, sigma, functional, GUIDANCE, grid)
    assert together.dtype == torch.float32 and together.shape == x.shape and together.abs().max() > 1e-3
    torch.testing.assert_close(torch.cat(per_step, 1), together, atol=2e-5, rtol=1e-4)
    numbers = torch.rand(2, 6, generator=torch.Generator().manual_seed(3))
    for kind in (static, functional):
        kind_of = "static" if kind is static else "functional"
        written, sampled = model.sample_text(kind.main, numbers, temperature=0.8, top_p=0.9)
        ids = [row[:length] for row, length in zip(sampled.ids_RT, sampled.length_R.tolist(), strict=True)]
        again, replayed = model.text_log_probs(read(model, "functional", TEXTS, pictures).main, ids, temperature=0.8)
        width = replayed.mask_RT.shape[1]
        torch.testing.assert_close(
            replayed.log_prob_RT, sampled.log_prob_RT[:, :width], atol=1e-5, rtol=1e-5, msg=kind_of
        )
        torch.testing.assert_close(replayed.entropy_RT, sampled.entropy_RT[:, :width], atol=1e-5, rtol=1e-5)
        assert torch.equal(written.position_R, again.position_R), "writing and reading a text must end at one place"
        if kind is static:
            first_ids = ids
    assert all(torch.equal(a, b) for a, b in zip(first_ids, ids, strict=True)), "the same numbers, the same tokens"


@pytest.mark.parametrize("narrow", ["autocast", "weights"])
@torch.no_grad()
def test_heads_and_pictures_are_fp32_whatever_the_precision(model: UnifiedModel, narrow: str) -> None:
    """bf16 heads would round logits and velocities (project/models/precision.py)."""
    latents, sigma, grid = noised(model)
    drawn = model.decode_latents(latents[:, 0], grid)
    if narrow == "weights":
        model = copy.deepcopy(model).to(torch.bfloat16)
    said: list[Any] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow == "autocast"):
        contexts = read(model, "functional", TEXTS)
        hook = model.register_forward_hook(lambda module, arguments, output: said.append(output))
        model.first_token_log_probs(contexts.main)
        model.velocity(latents, sigma, contexts, GUIDANCE, grid)
        hook.remove()
        assert torch.equal(model.decode_latents(latents[:, 0], grid), drawn), "pictures are decoded in fp32"
    logits, velocity = said[0].logits, said[1].velocity_RLD
    assert logits.dtype == velocity.dtype == torch.float32, "make both heads of project.models.Head"


@torch.no_grad()
def test_a_row_does_not_see_its_neighbours(model: UnifiedModel) -> None:
    x, sigma, grid = noised(model)
    both = model.velocity(x, sigma, read(model, "functional", TEXTS), GUIDANCE, grid)
    alone = model.velocity(x[:1], sigma, read(model, "functional", TEXTS[:1]), GUIDANCE, grid)
    torch.testing.assert_close(both[:1], alone, atol=2e-5, rtol=1e-4)
    other = model.velocity(x, sigma, read(model, "functional", TEXTS[::-1]), GUIDANCE, grid)
    assert (both - other).abs().max() > 1e-4, "the prompt does not matter"


def test_gradients_flow_through_a_functional_context_only(model: UnifiedModel) -> None:
    x, sigma, grid = noised(model)
    contexts = read(model, "functional", TEXTS)
    inputs = [p for p in model.parameters() if p.requires_grad]
    model.velocity(x, sigma, contexts, GUIDANCE, grid).square().mean().backward()
    exact = [None if p.grad is None else p.grad.clone() for p in inputs]
    model.zero_grad()
    cut = Contexts(main=contexts.main.detach(), text_free=contexts.text_free.detach())
    model.velocity(x, sigma, cut, GUIDANCE, grid).square().mean().backward()
    detached = [None if p.grad is None else p.grad.clone() for p in inputs]
    model.zero_grad()
    assert all(g.isfinite().all() for g in exact if g is not None)
    assert any(
        a is not None and (b is None or (a - b).abs().max() > 1e-9) for a, b in zip(exact, detached, strict=True)
    ), "detaching the context changes nothing: no gradient flowed through it"


@torch.no_grad()
def test_pictures_become_latents_and_back(model: UnifiedModel) -> None:
    pictures = picture(model)
    grid = model.latent_grid(*pictures.shape[-2:])
    latents = model.encode_image(pictures)
    assert latents.shape == (2, grid[0] * grid[1], model.latent_size)
    assert model.decode_latents(latents, grid).shape == pictures.shape
    index = model.latent_index(grid)
    assert index.dtype == torch.int64 and len(set(index.tolist())) == len(latents[0])
    if type(model).__name__ in READS_NO_PICTURES:
        with pytest.raises(ValueError):
            model.picture_patches(pictures[0])
    else:
        patches, places = model.picture_patches(pictures[0])
        assert patches.ndim == 2 and len(patches) == len(places)


@torch.no_grad()
def test_a_saved_model_is_the_same_model(model: UnifiedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(str(tmp_path))
    assert loaded.defaults == model.defaults and loaded.special == model.special
    x, sigma, grid = noised(model)
    ours, theirs = (m.velocity(x, sigma, read(m, "functional", TEXTS), GUIDANCE, grid) for m in (model, loaded))
    assert torch.equal(ours, theirs)
    ids = model.encode_text(TEXTS[0])
    assert model.decode_text(ids) == loaded.decode_text(ids) == TEXTS[0]
