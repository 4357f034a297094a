"""`ServiceReward` against a real HTTP server: the guarantees of judges, kept for scorers."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from project.core.metrics import values
from project.judges.base import JudgeUnavailable
from project.judges.openai.server import Service
from project.rewards.base import score
from project.rewards.service import ServiceReward
from project.trajectory import Prompt, Trajectory
from tests.helpers import ROOT, chat_server
from tests.helpers.chat_server import ScoreServer

QUICK: dict[str, Any] = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 5.0}
OPTIONS = {field.name for field in dataclasses.fields(Service)}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScoreServer]]:
    """Starts scorers, see `chat_server.starting`."""
    yield from chat_server.starting(monkeypatch, ScoreServer)


def reward_of(*servers: ScoreServer, **changes: Any) -> ServiceReward:
    settings = {**QUICK, **changes}
    service = Service([server.url for server in servers], **{k: v for k, v in settings.items() if k in OPTIONS})
    return ServiceReward(service, image_size=16, **{k: v for k, v in settings.items() if k not in OPTIONS})


def samples(trajectory: Any, number: int = 12) -> list[Trajectory]:
    return [trajectory(f"prompt {n % 3}", picture=10 * n) for n in range(number)]


def expected(trajectories: list[Trajectory]) -> torch.Tensor:
    return torch.tensor([chat_server.by_hash(t.image.pixels_HWC.numpy(), t.prompt.text) for t in trajectories])


def test_scores_are_those_of_the_server_whatever_the_batch(start: Any, trajectory: Any) -> None:
    server, drawn = start(), samples(trajectory, 13)
    for size, requests in ((5, 3), (100, 1), (1, 13)):
        before = len(server.bodies)
        reward = reward_of(server, batch_size=size)
        torch.testing.assert_close(reward.score(drawn).reward_N, expected(drawn))
        assert len(server.bodies) - before == requests
    assert set(server.bodies[0]) == {"prompts", "images"}
    assert reward.score([]).reward_N.shape == (0,)


def test_what_is_sent_is_what_was_asked_for(start: Any, trajectory: Any) -> None:
    server = start()
    reward = reward_of(server, columns=["style"], texts=True)
    drawn = [trajectory("a", texts=("first", "second"), style="oil"), trajectory("b", picture=7)]
    reward.preflight()
    reward.check([t.prompt for t in drawn])
    reward.score(drawn)
    assert set(server.bodies[0]) == set(server.bodies[1]), "the probe has the form of what follows"
    assert server.bodies[1]["columns"] == {"style": ["oil", None]}
    assert server.bodies[1]["texts"] == ["first\nsecond", ""]
    with pytest.raises(ValueError, match=r"'stile' is no column of the prompts: did you mean 'style'"):
        reward_of(server, columns=["stile"]).check([drawn[0].prompt])
    odd = Prompt(id="x", text="x", columns={"style": {1, 2}}, place="rows.jsonl:4")
    with pytest.raises(ValueError, match=r"rows.jsonl:4: columns: a value cannot be sent as JSON"):
        reward.check([odd])


def test_equal_samples_are_asked_about_once(start: Any, trajectory: Any) -> None:
    server = start()
    drawn = [trajectory("a", 1), trajectory("a", 2), trajectory("a", 1), trajectory("b", 1)]
    output = reward_of(server).score(drawn)
    torch.testing.assert_close(output.reward_N, expected(drawn))
    assert [len(body["prompts"]) for body in server.bodies] == [3]


# --------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault, kind",
    [
        ("hang", "timeout"),
        ("500", "server_error"),
        ("truncated", "malformed"),
        ("short", "malformed"),
        ("words", "malformed"),
        ("nan", "malformed"),
        ((429, {"error": "slow down"}), "rate_limit"),
        ((200, {"error": "out of memory"}), "server_error"),
        ((200, {"score": []}), "malformed"),
        ((200, "hello"), "malformed"),
    ],
)
def test_a_passing_fault_is_asked_again(start: Any, trajectory: Any, fault: Any, kind: str) -> None:
    server, drawn = start(script=lambda n, body: fault if n % 3 == 0 else None), samples(trajectory)
    output = reward_of(server, batch_size=2, timeout=0.5 if fault == "hang" else 20.0).score(drawn)
    torch.testing.assert_close(output.reward_N, expected(drawn))
    told = values(output.metrics)
    assert told[f"service/service/failures/{kind}"] == told["service/service/retries"] == len(server.faults) >= 2


@pytest.mark.parametrize("fault", ["500", "short", "words", "nan", (400, {"error": "no"})])
def test_a_lasting_fault_is_no_score(start: Any, trajectory: Any, fault: Any) -> None:
    """One request never gets what was asked for: its samples are NaN, and not 0; the others have theirs."""
    server = start(script=lambda n, body: fault if "prompt 1" in body["prompts"] else None)
    drawn = samples(trajectory)
    output = reward_of(server, batch_size=1, retries=1, breaker_failures=100).score(drawn)
    lost = torch.tensor([t.prompt.text == "prompt 1" for t in drawn])
    assert torch.equal(output.reward_N.isnan(), lost)
    torch.testing.assert_close(output.reward_N[~lost], expected(drawn)[~lost])
    assert values(output.metrics)["service/service/unscored"] == pytest.approx(1 / 3)


def test_null_is_not_scored_and_not_asked_again(start: Any, trajectory: Any) -> None:
    server = start(script=lambda n, body: "null" if n == 0 else None)
    output = reward_of(server, batch_size=6, concurrency=1).score(samples(trajectory))
    assert output.reward_N.isnan().tolist() == [True] * 6 + [False] * 6 and len(server.bodies) == 2


def test_a_server_killed_and_restarted_loses_no_score(start: Any, trajectory: Any) -> None:
    server, drawn = start(seconds=0.02), samples(trajectory, 24)
    reward = reward_of(server, batch_size=1, concurrency=3, retries=1, breaker_failures=3)

    def interrupt() -> None:
        while len(server.bodies) < 8:
            time.sleep(0.005)
        server.kill()
        time.sleep(0.4)
        server.start()

    killer = threading.Thread(target=interrupt)
    killer.start()
    output = reward.score(drawn)
    killer.join()
    torch.testing.assert_close(output.reward_N, expected(drawn))


def test_the_others_go_on_without_a_dead_server(start: Any, trajectory: Any) -> None:
    dead, alive, drawn = start(), start(), samples(trajectory)
    reward = reward_of(dead, alive, batch_size=1, breaker_failures=2)
    dead.kill()
    torch.testing.assert_close(reward.score(drawn).reward_N, expected(drawn))


def test_a_service_that_is_gone_ends_the_scoring(start: Any, trajectory: Any) -> None:
    server = start()
    reward = reward_of(server, patience=0.3, breaker_failures=2)
    server.kill()
    with pytest.raises(JudgeUnavailable, match=rf"reward service {server.url}: no reward service has answered for"):
        score(samples(trajectory), [reward])
    broken = start(script=lambda n, body: (400, {"error": "no"}))
    with pytest.raises(JudgeUnavailable, match=r"every one of 12 requests failed, at last with rejected"):
        score(samples(trajectory), [reward_of(broken, batch_size=1)])


def test_how_long_it_is_waited_for_is_known() -> None:
    reward = ServiceReward(Service("http://localhost:1", patience=7200.0, retries=1, timeout=20.0))
    assert reward.longest_wait == 7200 + 2 * (20 + 30)
    reward.stop_waiting()


# --------------------------------------------------------------------- before training


@pytest.mark.parametrize(
    "fault, said",
    [
        ("short", "0 scores for 1 samples"),
        ("words", "neither a finite number nor null: 'good'"),
        ((200, {"choices": []}), r"that is no score list \(no list \"scores\".*is this a reward service"),
        ((404, {"error": "no"}), "no score lists under this address .*give the address without /score"),
        ((401, {"error": "who?"}), "it wants a key and none was sent"),
    ],
)
def test_what_is_no_such_service_is_refused_before_training(start: Any, fault: Any, said: str) -> None:
    server = start(script=lambda n, body: fault)
    with pytest.raises(ValueError, match=rf"reward service at {server.url}: .*{said}"):
        reward_of(server).preflight()


def test_bad_arguments(tmp_path: Path) -> None:
    service = Service("http://localhost:1")
    for arguments, said in (
        ({"batch_size": 0}, "batch_size=0"),
        ({"cache": str(tmp_path)}, "name it and its version as scorer"),
    ):
        with pytest.raises(ValueError, match=said):
            ServiceReward(service, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without /score, such as http"):
        Service("http://localhost:1/score")
    with pytest.raises(ValueError, match="is no address: give one such as http://localhost:8000"):
        Service("localhost")


# --------------------------------------------------------------------- cache


def test_scores_are_kept_and_found_by_what_the_scorer_sees(start: Any, trajectory: Any, tmp_path: Path) -> None:
    server, drawn = start(script=lambda n, body: "null" if n == 1 else None), samples(trajectory, 4)
    kept = {"cache": str(tmp_path), "scorer": "hash-1", "batch_size": 2, "concurrency": 1}
    first = reward_of(server, **kept).score(drawn)
    assert first.reward_N.isnan().tolist() == [False, False, True, True]
    again = reward_of(server, **kept).score(drawn)
    torch.testing.assert_close(again.reward_N, expected(drawn)), "only what was not scored is asked again"
    assert len(server.bodies) == 3 and values(again.metrics)["service/hash_1/cache/hits"] == 2
    reward_of(server, **{**kept, "scorer": "hash-2"}).score(drawn)
    assert len(server.bodies) == 5, "another version has answers of its own"
    assert json.dumps(server.bodies[2]["prompts"]) == '["prompt 2", "prompt 0"]'


def test_the_server_of_the_guide_serves_what_is_asked(trajectory: Any) -> None:
    """The code of README.md, as a reader would run it, on a port of its own."""
    guide = (ROOT / "project/rewards/README.md").read_text(encoding="utf-8")
    code = guide.partition("<!-- file: score_server.py -->\n```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 21, "it is to stay tiny"
    names: dict[str, Any] = {"__name__": "score_server"}
    exec(compile(code, "score_server.py", "exec", dont_inherit=True), names)
    names["Handler"].log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"]) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        reward = ServiceReward(Service(f"http://127.0.0.1:{server.server_address[1]}"), image_size=16)
        reward.preflight()
        reward_N = reward.score([trajectory("a", 51), trajectory("b", 204)]).reward_N
        server.shutdown()
    assert reward_N.tolist() == pytest.approx([0.2, 0.8])
