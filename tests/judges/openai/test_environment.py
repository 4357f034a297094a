"""What the client's own environment does to it: proxies, certificates, keys, addresses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.__main__ import main
from project.decomposition.openai_client import OpenAIChat
from project.judges.openai.environment import proxy_of
from project.judges.openai.judge import OpenAIJudge
from project.judges.openai.server import Server, address_of
from project.judges.openai.text_judge import OpenAITextJudge
from tests.helpers import ROOT, chat_server

CLIENTS = (OpenAIJudge, OpenAITextJudge, OpenAIChat)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
KEY = "sk-very-secret-1234"
HTML = "<html><h1>503 Service Unavailable</h1>proxy: cannot resolve host</html>"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any of the variables."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[chat_server.ChatServer]:
    with chat_server.ChatServer() as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[chat_server.ChatServer]:
    """It cannot reach anything."""
    with chat_server.ChatServer() as running:
        running.page = (503, HTML)
        yield running


def refusal(kind: Any, base_url: str, **settings: Any) -> str:
    with pytest.raises(ValueError) as caught:
        chat_server.client(kind, base_url, **settings).preflight()
    return str(caught.value)


# --------------------------------------------------------------------- proxies


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_does_not_let_through_is_named(
    kind: Any, variable: str, server: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
    said = refusal(kind, server.url)
    address = proxy.url.removesuffix("/v1")
    assert all(part in said for part in (server.url, f"proxy {address} ({variable})", "NO_PROXY=127.0.0.1")), said
    assert not server.bodies
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chat_server.client(kind, server.url).preflight()


def test_a_proxy_that_is_away_is_named(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    said = refusal(OpenAIJudge, server.url)
    assert "nothing answers" in said and "http://127.0.0.1:9 (HTTP_PROXY)" in said and "secret" not in said


def test_a_proxy_is_not_blamed_for_what_the_server_says(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page = (401, {"error": {"message": "invalid"}})
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    assert "HTTP_PROXY" not in refusal(OpenAIJudge, "http://judge.example/v1")


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_socks_proxy_without_its_package_is_named(kind: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    said = refusal(kind, server.url)
    assert all(part in said for part in ("socks5://127.0.0.1:1080", "ALL_PROXY", "pip install socksio", "NO_PROXY"))
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8")
    chat_server.client(kind, server.url).preflight()


@pytest.mark.parametrize("given", ["socks4://127.0.0.1:1080", "htp://proxy:1", "http://proxy:port"])
def test_a_proxy_that_is_no_address_is_named(given: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", given)
    said = refusal(OpenAIJudge, server.url)
    assert f"{given} (HTTP_PROXY)" in said and "unset HTTP_PROXY" in said


@pytest.mark.parametrize(
    "no_proxy, direct",
    [
        ("", False),
        ("other", False),
        ("*", True),
        ("10.0.0.5", True),
        ("10.0.0.5:8000", True),
        ("10.0.0.5:8001", False),
        ("127.0.0.1, 10.0.0.0/8", True),
        ("10.0.1.0/24,nonsense/8", False),
    ],
)
def test_no_proxy_is_read_as_others_do(no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    found = proxy_of(address_of("http://10.0.0.5:8000/v1"))
    assert (found is None) == direct
    assert found is None or found.url == "http://proxy:3128"
    assert proxy_of(address_of("https://10.0.0.5/v1")) is None, "HTTP_PROXY is for http"


def test_a_judge_lost_behind_a_proxy_names_it(server: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = chat_server.client(
        OpenAITextJudge, server.url, patience=0.2, probe_seconds=0.05, retries=2, breaker_failures=1
    )
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
    with pytest.raises(RuntimeError, match=r"no judge has answered.*HTTP_PROXY.*NO_PROXY"):
        judge.answer_texts(["a"], ["b", "c"], ["d"])


# --------------------------------------------------------------------- certificates


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_certificate_file_that_is_none_is_named(
    kind: Any, content: str | None, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "company.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    said = refusal(kind, server.url)
    assert "SSL_CERT_FILE" in said and str(file) in said and "unset SSL_CERT_FILE" in said


def test_https_to_a_server_of_http_is_named(server: Any) -> None:
    assert "write http://" in refusal(OpenAIJudge, server.url.replace("http://", "https://"))


# --------------------------------------------------------------------- keys


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY} ", f"{KEY}\r\n", f"\t{KEY}"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_white_space_around_a_key_is_left_out(
    kind: Any, key: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = KEY
    monkeypatch.setenv("JUDGE_KEY", key)
    chat_server.client(kind, server.url, api_key_env="JUDGE_KEY").preflight()
    chat_server.client(kind, server.url, api_key=key).preflight()


@pytest.mark.parametrize(
    "key, fault",
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("sk-very\nsecret", "a blank or a line end"),
        ("sk-very secret", "a blank or a line end"),
        ("Bearer sk-very-secret", "a blank or a line end"),
        ("“sk-very-secret”", "typographic quotation mark"),
        ('"sk-very-secret"', "quotation marks"),
        ("sk-very-sécret", "an accent"),
        ("sk-very\x00secret", "that no key has"),
        ("sk-very\u200bsecret", "that no key has"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_by_its_name(
    key: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "\x00" not in key:
        monkeypatch.setenv("JUDGE_KEY", key)
        with pytest.raises(ValueError) as caught:
            OpenAIJudge(Server("http://localhost:1/v1", "m", api_key_env="JUDGE_KEY"))
        assert "environment variable JUDGE_KEY" in str(caught.value) and fault in str(caught.value)
        assert "very" not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        Server("http://localhost:1/v1", "m", api_key=key)
    assert "api_key" in str(caught.value) and fault in str(caught.value) and "very" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 429, 500])
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_key_is_never_printed(kind: Any, status: int, server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Servers repeat keys in what they say."""
    server.page = (status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    made = chat_server.client(kind, server.url, api_key=KEY, retries=0, breaker_failures=1, patience=0.1)
    with pytest.raises(ValueError) as caught:
        made.preflight()
    said = str(caught.value)
    with caplog.at_level(logging.DEBUG), pytest.raises((RuntimeError, ValueError)) as lost:
        if kind is OpenAIChat:
            made.chat([{"role": "user", "content": "hello"}])
        elif kind is OpenAITextJudge:
            made.answer_texts(["a"], ["b"], ["c"])
        else:
            raise ValueError("as for texts")
    assert "Incorrect API key" in said
    assert all(
        KEY not in text for text in (said, str(lost.value), caplog.text, repr(Server(server.url, "m", api_key=KEY)))
    )


def test_the_command_line_never_prints_a_key(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very\nsecret")
    options = ["--judge", "project.judges.OpenAIJudge", f"--judge.server.base_url={server.url}"]
    options += ["--judge.server.model=tiny-vlm", "--judge.server.api_key_env=JUDGE_KEY"]
    assert main(["audit", "--out", str(tmp_path), "--number", "12", *options]) == 1
    said = capsys.readouterr().err
    assert "JUDGE_KEY" in said and "very" not in said and "Traceback" not in said


def test_a_key_that_is_no_text_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML reads digits without quotation marks as a number."""
    server = {"base_url": "http://localhost:1/v1", "model": "m", "api_key": 987654321}
    judge = {"class_path": "project.judges.OpenAIJudge", "init_args": {"server": server}}
    reward = {"class_path": "project.rewards.DVReward", "init_args": {"judge": judge}}
    (tmp_path / "key.yaml").write_text(yaml.safe_dump({"rewards": [reward]}))
    assert (
        main(["fit", "--config", str(ROOT / "configs/shapes/demo.yaml"), "--config", str(tmp_path / "key.yaml")]) == 2
    )
    said = capsys.readouterr().err
    assert "api_key is no str: write it in quotation marks" in said and "987654321" not in said


# --------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "base_url, chat, shown",
    [
        ("http://a:1/v1", "http://a:1/v1/chat/completions", "http://a:1/v1"),
        (" http://a:1/v1/ ", "http://a:1/v1/chat/completions", "http://a:1/v1"),
        ("http://a/v1\n", "http://a/v1/chat/completions", "http://a/v1"),
        (
            "https://a/openai/deployments/b?api-version=2024-10-21",
            "https://a/openai/deployments/b/chat/completions?api-version=2024-10-21",
            "https://a/openai/deployments/b",
        ),
        ("https://a/v1/?key=secret", "https://a/v1/chat/completions?key=secret", "https://a/v1"),
        ("http://me:secret@a:1/v1", "http://a:1/v1/chat/completions", "http://a:1/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(base_url: str, chat: str, shown: str) -> None:
    found = address_of(base_url)
    assert (found.requests, found.shown) == (chat, shown)
    assert found.models == chat.replace("/chat/completions", "/models")
    assert "secret" not in repr(found).replace(chat, "").replace(found.models, "")


@pytest.mark.parametrize(
    "base_url", ["localhost:8000/v1", "http://a:port/v1", "http://a:99999/v1", "http://a b/v1", "http:///v1", "ftp://a"]
)
def test_what_is_no_address_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="is no address: give one such as"):
        Server(base_url, "m")


def test_a_query_stays_behind_the_path(server: Any) -> None:
    chat_server.client(OpenAIJudge, f"{server.url}?api-version=1 ").preflight()
    assert server.queries == ["api-version=1"]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_redirect_is_named(kind: Any, server: Any) -> None:
    server.page = (307, "")
    server.headers = {"Location": "https://elsewhere.example/v1/chat/completions?token=secret"}
    said = refusal(kind, server.url)
    assert "redirects to https://elsewhere.example/v1/chat/completions" in said and "base_url" in said
    assert "secret" not in said
