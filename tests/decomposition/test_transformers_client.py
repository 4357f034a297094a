"""`TransformersChat` with a tiny language model of random weights, saved as the real ones are."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from project.decomposition.llm import LLMDecomposer
from project.decomposition.transformers_client import TransformersChat
from tests.helpers import tiny_vlms

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a red circle"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = tiny_vlms.byte_tokenizer()
    tokenizer.chat_template = tiny_vlms.CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
                eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
            )
        )  # fmt: skip
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("llm")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_replies_are_the_same_every_time_and_differ_by_attempt(folder):
    model = TransformersChat(str(folder), dtype="float32", max_tokens=12)
    model.preflight()
    before = torch.random.get_rng_state()
    replies = [model.chat(MESSAGES, attempt) for attempt in (0, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(set(replies)) == 3 and all(reply.text for reply in replies)
    assert [
        TransformersChat(str(folder), dtype="float32", max_tokens=12).chat(MESSAGES, n) for n in (0, 1, 2)
    ] == replies
    assert model.chat(MESSAGES[:1]) != replies[0], "the chat does not matter"
    assert model.name == f"transformers:{folder}:float32"


def test_noise_is_no_decomposition(folder):
    model = TransformersChat(str(folder), dtype="float32", max_tokens=12)
    with pytest.raises(ValueError, match="no valid questions in 2 attempts"):
        LLMDecomposer(model, again=1).decompose("a red circle")


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no language model folder"):
        TransformersChat(str(tmp_path / "none")).preflight()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is no language model that transformers can read"):
        TransformersChat(str(tmp_path)).preflight()
    with pytest.raises(ValueError, match="temperature above 0"):
        TransformersChat("x", temperature=0.0)
