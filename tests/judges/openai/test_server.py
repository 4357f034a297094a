"""`OpenAIJudge` against a model server that nobody here wrote: llama-cpp-python with a tiny random LLaVA.

    pip install -e '.[dev,server]'          # compiles llama.cpp: 6 minutes on two cores
    pytest -m server tests/judges/test_openai_server.py

or, with the server in an environment of its own (this one then needs `pip install gguf` only),

    pytest -m server tests/judges/test_openai_server.py --server-python /path/to/venv/bin/python
"""

from __future__ import annotations

import csv
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import torch

from project.core.metrics import values
from project.judges.openai.judge import OpenAIJudge
from project.judges.openai.server import Server
from project.judges.transformers import TransformersJudge
from project.trajectory import Question
from tests.helpers import tiny_run

pytestmark = pytest.mark.server
MODEL = "tiny-llava"
ASKED = [Question(text=text) for text in ("Is it red?", "Is there a circle?", "Are there two squares?")]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    pytest.importorskip("gguf", reason="pip install gguf")
    from tests.helpers.tiny_llava import write_tiny_llava

    write_tiny_llava(folder)
    return folder


@pytest.fixture(scope="module")
def serve(llava: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Starts servers with options of their own; gives their addresses."""
    python = request.config.getoption("--server-python")
    if subprocess.run([python, "-c", "import llama_cpp.server.app"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no llama-cpp-python[server]: pip install it, or name another by --server-python")
    running: list[subprocess.Popen[bytes]] = []

    def start(**options: Any) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {
            "model": llava / "model.gguf",
            "clip_model_path": llava / "mmproj.gguf",
            "model_alias": MODEL,
            "chat_format": "llava-1-5",
            "n_ctx": 2048,
            "type_k": 0,  # keys and values in fp32
            "type_v": 0,
            "n_threads": 1,
            "n_threads_batch": 1,
            "port": port,
            **options,
        }
        command = [python, "-m", "llama_cpp.server", *(f"--{name}={value}" for name, value in settings.items())]
        with (llava / f"{port}.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        url = f"http://localhost:{port}/v1"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/models")
                return url
            except httpx.TransportError:
                time.sleep(0.2)
        pytest.fail(f"the server does not start: {(llava / f'{port}.log').read_text()[-1000:]}")

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def url(serve: Callable[..., str]) -> str:
    return serve()


def test_confidences_are_those_of_the_same_model_in_process(llava: Path, url: str) -> None:
    rng = np.random.default_rng(0)
    pictures = [np.full((64, 64, 3), rng.integers(0, 256, 3), dtype=np.uint8) for _ in range(6)]
    pictures += [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(6)]
    judges = (
        OpenAIJudge(Server(url, MODEL), image_size=64),
        TransformersJudge(str(llava / "transformers"), dtype="float32", device="cpu"),
    )
    far, near = (np.array(j.answer(pictures, [ASKED] * 12, ["a red circle"] * 12), dtype=float) for j in judges)
    assert np.abs(far - near).max() < 5e-4
    assert near.std(0).min() > 5e-3, "the pictures make no difference"
    metrics = values(judges[0].metrics())
    assert metrics["judge/calls"] == 36 and metrics["judge/retries"] == metrics["judge/undecided"] == 0


def test_preflight_passes(url: str) -> None:
    OpenAIJudge(Server(url, MODEL), image_size=64).preflight()


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"n_ctx": 256}, ["context is too short", "64 x 64 pixels"]),
        ({"logits_all": "false"}, ["log-probabilities", "text_fallback"]),
        ({"api_key": "secret"}, ["wants a key and none was sent", "api_key_env"]),
    ],
)
def test_preflight_reads_its_complaints(serve: Callable[..., str], options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        OpenAIJudge(Server(serve(**options), MODEL), image_size=64).preflight()
    assert all(part in str(caught.value) for part in parts), caught.value


def test_preflight_names_an_address_without_v1(url: str) -> None:
    with pytest.raises(ValueError, match=r"no chat completions under this address .*up to and including /v1"):
        OpenAIJudge(Server(url.removesuffix("/v1"), MODEL), image_size=64).preflight()


def test_a_whole_fit_judged_over_http(llava: Path, url: str, tmp_path: Path) -> None:
    """Three updates; the rewards of the first are those of the same model in-process."""
    world = tiny_run.write_world(tmp_path)
    far = {"server": {"base_url": url, "model": MODEL}, "image_size": 64}
    near = {"model": str(llava / "transformers"), "dtype": "float32", "device": "cpu"}
    rows = []
    for name, judge, arguments in (
        ("far", "project.judges.openai.judge.OpenAIJudge", far),
        ("near", "project.judges.transformers.TransformersJudge", near),
    ):
        assert tiny_run.fit(world, name, judge, "--trainer.max_steps=3", **arguments) == 0
        run = world / f"runs/{name}/version_0"
        rows.append([row for row in csv.DictReader((run / "metrics.csv").open()) if row["grad_norm"]])
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["updates"] == 3
    assert [len(run) for run in rows] == [3, 3]
    assert float(rows[0][0]["reward/mean"]) == pytest.approx(float(rows[1][0]["reward/mean"]), abs=5e-4)
    for row in rows[0]:
        assert float(row["judge/unanswered"]) == 0 and float(row["grad_norm"]) > 0
        assert 0 < float(row["reward/mean"]) < 1
