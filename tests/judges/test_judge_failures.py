"""Training with a judge over HTTP that fails: it goes on, learns from what was answered, and stops saved if it must."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from project.__main__ import main
from project.judges.openai.judge import OpenAIJudge
from project.module import AlphaGRPO
from project.objectives.grpo import GRPO
from project.rewards.dvreward import DVReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.training.settings import UpdateSettings
from project.trajectory import Group, Prompt, Question
from tests.helpers import ROOT, chat_server, tiny_run
from tests.helpers.backbones import NewDenseModel
from tests.helpers.sampling import sde

QUESTIONS = tuple(Question(text=f"Is it {word}?") for word in ("red", "round", "large", "alone"))
PROMPTS = [
    Prompt(id=str(n), text=text, questions=QUESTIONS)
    for n, text in enumerate(["a red circle", "a green square", "two red square"])
]
JUDGE = "project.judges.openai.judge.OpenAIJudge"
QUICK: dict[str, Any] = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 20.0, "image_size": 16}


def judge_arguments(server: Any, **changes: Any) -> dict[str, Any]:
    return chat_server.options(server.url, **{**QUICK, **changes})


def judge_of(server: Any, **changes: Any) -> OpenAIJudge:
    return chat_server.client(OpenAIJudge, server.url, **{**QUICK, **changes})


# --------------------------------------------------------------------- gradients


class Driven(AlphaGRPO):
    """One update on a group that a function has changed; keeps the group with its advantages."""

    change: Callable[[Group], Group] = staticmethod(lambda group: group)
    seen: list[Group]

    def training_step(self, prompts: Any, batch_idx: int) -> dict[str, Any]:
        (drawn,) = self.rollout(prompts)
        group = self.change(drawn)
        if group is not drawn:
            group = dataclasses.replace(group, pending=(self.scorer(group.trajectories),))
        group = self.advantages(self.score(group))
        self.update([group], first=True)
        self.updates += 1
        self.seen.append(group)
        return {"group": group}


def policy() -> Any:
    return NewDenseModel()


def trained(judge: OpenAIJudge, change: Any = None, updates: int = 1, **reward: Any) -> Driven:
    module = Driven(
        policy=policy(),
        task=ReasoningT2I(height=8, width=8, max_tokens=4, top_p=1.0, guidance=Guidance(text=2.0, interval=(0.0, 1.0))),
        sampler=sde(6, 2, (0, 4)),
        objective=GRPO(),
        # The step is the gradient, unclipped.
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0 if updates == 1 else 1e-2),
        num_generations=4,
        update=UpdateSettings(micro_batch_size=100, gradient_clip=1e9),
        seed=3,
    )
    module.seen = []
    module.change = change or module.change
    module.transfer_batch_to_device = lambda batch, device, index: batch
    trainer = Trainer(
        accelerator="cpu",
        max_steps=updates,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DVReward(judge, **reward)],
    )
    trainer.fit(module, torch.utils.data.DataLoader([PROMPTS] * 20, batch_size=None, collate_fn=lambda rows: rows))
    return module


def test_masked_failures_give_the_gradient_of_the_survivors(start: Any) -> None:
    """One sample of two groups and the whole third group are never answered: as if they had not been drawn."""
    drawn: list[Group] = []
    trained(judge_of(start()), change=lambda group: drawn.append(group) or group)
    lost = {2, 5, 8, 9, 10, 11}
    pictures = {drawn[0].trajectories[n].image.pixels_HWC.numpy().tobytes() for n in lost}
    assert len({t.image.pixels_HWC.numpy().tobytes() for t in drawn[0].trajectories}) == 12

    def script(n: int, body: Any) -> str | None:
        return "500" if chat_server.asked(body)[0].tobytes() in pictures else None

    masked = trained(judge_of(start(script=script), retries=1, breaker_failures=1000))
    (group,) = masked.seen
    assert group.scores is not None
    assert set(torch.nonzero(group.scores.reward_N.isnan()).flatten().tolist()) == lost
    assert group.scores.reward_N.nan_to_num(1.0).min() > 0.2, "a failure became a low reward"

    def survivors(group: Group) -> Group:
        kept = tuple(t for n, t in enumerate(group.trajectories) if n not in lost)
        return dataclasses.replace(group, trajectories=kept, size=3)

    alone = trained(judge_of(start()), change=survivors)
    untouched = policy().load()
    moved = 0.0
    for (name, ours), theirs, start_value in zip(
        masked.policy.named_parameters(), alone.policy.parameters(), untouched.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0, msg=name)
        moved = max(moved, float((ours - start_value).abs().max()))
    assert moved > 1e-3, "no gradient to compare"


def test_a_lost_answer_is_not_a_low_reward(start: Any) -> None:
    """Single questions fail: rewards stay within the range of what was answered."""
    judge = judge_of(start(script=storm(3)), retries=0, timeout=1.0, breaker_failures=1000)
    seen = trained(judge, updates=4, minimum_answered=0.25).seen
    lost = 0
    for group in seen:
        assert group.scores is not None
        rewards = group.scores.reward_N
        assert rewards[~rewards.isnan()].min() >= 0.2, "0.2 is the lowest confidence that this server gives"
        lost += sum(value is None for row in group.scores.confidence_NQ for value in row)
    assert len(seen) == 4 and lost > 10


# --------------------------------------------------------------------- whole runs


def storm(seed: int, incomplete: str = "no log-probs", of: int = 100) -> Callable[[int, Any], str | None]:
    """Of 100 requests 10 time-outs, 5 each of 500s, truncated JSON and answers that lack something."""
    numbers = random.Random(seed)
    faults = ["hang"] * 10 + ["500"] * 5 + ["truncated"] * 5 + [incomplete] * 5

    def script(n: int, body: Any) -> str | None:
        chosen = numbers.randrange(of)
        return faults[chosen] if n > 3 and chosen < len(faults) else None

    return script


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_world(tmp_path_factory.mktemp("world"))


@dataclasses.dataclass(frozen=True)
class Asked:
    """Who is asked over HTTP: a judge by DVReward, or a reward service."""

    kind: type[chat_server.ChatServer]
    class_path: str
    who: str
    stormy: int
    """Requests among which there are 25 faults: fewer where little is asked."""

    def named(self, name: str) -> str:
        """A run's name of its own."""
        return f"{name}_{self.kind.__name__}"

    def arguments(self, server: Any, **changes: Any) -> dict[str, Any]:
        made = judge_arguments(server, **changes)
        if self.kind is chat_server.ScoreServer:
            service = {name: value for name, value in made.pop("server").items() if name != "model"}
            made |= {"service": service, "batch_size": 1}
        return made


ASKED = {
    "judge": Asked(chat_server.ChatServer, JUDGE, "judge", 100),
    "service": Asked(chat_server.ScoreServer, "project.rewards.service.ServiceReward", "reward service", 50),
}


both = pytest.mark.parametrize("asked", list(ASKED), indirect=True)
"""The test is for judges and for reward services."""


@pytest.fixture
def asked(request: pytest.FixtureRequest) -> Asked:
    return ASKED[getattr(request, "param", "judge")]


@pytest.fixture
def start(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts servers of the kind that is asked."""
    yield from chat_server.starting(monkeypatch, asked.kind)


@pytest.fixture
def fit(world: Path, asked: Asked) -> Callable[..., int]:
    """Five updates, judged by a server; the exit code."""

    def run(name: str, server: Any, *options: str, **arguments: Any) -> int:
        return tiny_run.fit(world, name, asked.class_path, *options, **asked.arguments(server, **arguments))

    return run


def last(world: Path, name: str) -> dict[str, Any]:
    return torch.load(world / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)


def same(one: Any, two: Any) -> bool:
    """Whether two nests of dicts and lists are equal to the last bit."""
    if torch.is_tensor(one):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def assert_same_run(one: dict[str, Any], two: dict[str, Any]) -> None:
    for part in ("updates", "state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert same(one[part], two[part]), part


@pytest.fixture(scope="module")
def made(world: Path) -> dict[str, dict[str, Any]]:
    """Whole runs, by name."""
    return {}


@pytest.fixture
def whole(world: Path, asked: Asked, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last checkpoint of five updates with a judge that never fails, and how many questions it was asked."""
    name = asked.named("whole")
    if name not in made:
        with asked.kind() as server:
            assert tiny_run.fit(world, name, asked.class_path, **asked.arguments(server)) == 0
            made[name] = {"checkpoint": last(world, name), "asked": len(server.bodies)}
    return made[name]


@both
def test_a_run_through_faults_is_the_run_without(
    world: Path, fit: Any, whole: dict[str, Any], start: Any, asked: Asked
) -> None:
    script = storm(1, asked.kind.incomplete, of=asked.stormy)
    server, name = start(script=script), asked.named("storm")
    assert fit(name, server, timeout=1.0, retries=8, breaker_failures=30) == 0
    assert set(server.faults) == {"hang", "500", "truncated", asked.kind.incomplete}
    assert_same_run(last(world, name), whole["checkpoint"])


def test_a_judge_restarted_in_the_midst_changes_nothing(
    world: Path, fit: Any, whole: dict[str, Any], start: Any
) -> None:
    server = start()

    def restart() -> None:
        server.kill()
        time.sleep(1.0)
        server.start()

    def script(n: int, body: Any) -> str | None:
        if n == whole["asked"] // 2:
            threading.Thread(target=restart).start()
            return "500"
        return None

    server.script = script
    assert fit("restarted", server, breaker_failures=2) == 0
    assert_same_run(last(world, "restarted"), whole["checkpoint"])


def dies_at(server: Any, number: int) -> None:
    """From question `number` on the server fails, and soon it is gone."""

    def script(n: int, body: Any) -> str | None:
        if n == number:
            threading.Thread(target=server.kill).start()
        return "500" if n >= number else None

    server.script = script


def goes_on(server: Any, message: str) -> None:
    """Starts the server again and does as the message says."""
    server.script = lambda n, body: None
    server.start()
    (line,) = [line for line in message.splitlines() if "--ckpt_path" in line]
    command = shlex.split(line)
    assert command[:3] == ["python", "-m", "project"]
    assert main(command[3:]) == 0


OVERLAP = "--model.init_args.overlap=true"


@pytest.mark.parametrize(
    "asked, share, options",
    [
        ("judge", 0.3, []),
        ("judge", 0.7, []),
        ("judge", 0.95, []),
        ("judge", 0.7, [OVERLAP]),
        ("service", 0.7, [OVERLAP]),
    ],
    indirect=["asked"],
)
def test_a_dead_judge_ends_the_run_saved(
    world: Path,
    fit: Any,
    whole: dict[str, Any],
    start: Any,
    capsys: pytest.CaptureFixture[str],
    asked: Asked,
    share: float,
    options: list[str],
) -> None:
    """Going on as the message says repeats the interrupted update and ends where the whole run ends."""
    server, name = start(), asked.named(f"dead_{share}_{len(options)}")
    dies_at(server, int(whole["asked"] * share))
    assert fit(name, server, *options, breaker_failures=2, patience=1.0) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    assert "Traceback" not in message and f"no {asked.who} has answered for 1 s" in message and server.url in message
    saved = last(world, name)
    assert saved["updates"] == {0.3: 1, 0.7: 3, 0.95: 4}[share], "4 updates are an epoch"
    assert f"Stopped after update {saved['updates']}" in message
    goes_on(server, message)
    assert_same_run(last(world, name), whole["checkpoint"])


@pytest.mark.parametrize("options", [[], [OVERLAP]])
def test_a_signal_ends_the_wait_for_a_dead_judge(
    world: Path, fit: Any, whole: dict[str, Any], start: Any, caplog: pytest.LogCaptureFixture, options: list[str]
) -> None:
    """A cluster that takes the machine away does not wait for the judge's patience; nothing is lost either."""
    server, name = start(), f"signalled_{len(options)}"
    dies_at(server, int(whole["asked"] * 0.7))

    def signalled() -> None:
        while server.server is not None:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=signalled).start()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert fit(name, server, *options, breaker_failures=2, patience=600.0) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 60
    (message,) = [record.getMessage() for record in caplog.records if "Go on with" in record.getMessage()]
    assert last(world, name)["updates"] == 3 and "Stopped after update 3" in message
    goes_on(server, message)
    assert_same_run(last(world, name), whole["checkpoint"])


@both
def test_a_judge_dead_from_the_start_is_named_before_training(
    fit: Any, start: Any, capsys: pytest.CaptureFixture[str], asked: Asked
) -> None:
    server = start()
    server.kill()
    assert fit(asked.named("never"), server) == 1
    assert f"{asked.who} at {server.url}: nothing answers there" in capsys.readouterr().err


def test_a_judge_lost_to_one_rank_ends_the_run_of_all(tmp_path: Path) -> None:
    """Both ranks stop at one place and save together; going on repeats the update."""
    said = {}
    for stage in ("whole", "parts", "resumed"):
        command = [sys.executable, "-m", "tests.helpers.ranks_dead_judge", str(tmp_path), stage]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        said[stage] = [torch.load(tmp_path / f"{stage}_{rank}.pt") for rank in (0, 1)]
        if stage == "parts":
            assert torch.load(tmp_path / "parts/checkpoints/last.ckpt", weights_only=True)["updates"] == 2
    assert [rank["caught"] for rank in said["parts"]] == [
        "the rewards of another rank failed: its message says why",
        "nobody answers",
    ]
    for rank in (0, 1):
        assert same(said["resumed"][rank]["weights"], said["whole"][rank]["weights"])


def test_a_judge_that_dies_during_an_audit_is_one_message(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was answered stays; the same command goes on."""
    server = start()
    dies_at(server, 30)
    settings = {"base_url": server.url, "model": "tiny-vlm", "patience": 0.5, "probe_seconds": 0.05}
    options = ["--judge", "project.judges.OpenAIJudge", "--out", str(tmp_path), "--number", "48", "--batch-size", "8"]
    options += [f"--judge.server.{name}={value}" for name, value in settings.items()]
    assert main(["audit", *options]) == 1
    said = capsys.readouterr().err
    assert "error: judge 'tiny-vlm': no judge has answered" in said and "Traceback" not in said
    kept = len((tmp_path / "answers.jsonl").read_text().splitlines())
    assert 0 < kept < 48
    server.script = lambda n, body: None
    server.start()
    asked = len(server.bodies)
    assert main(["audit", *options]) == 0
    assert asked < len(server.bodies) < asked + 48, "what was answered is not asked again"
    answered = {
        line for line in (tmp_path / "answers.jsonl").read_text().splitlines() if '"confidence": null' not in line
    }
    assert len(answered) == 48
