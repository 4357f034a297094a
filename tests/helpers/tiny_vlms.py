"""Tiny Qwen-VL models with random weights, saved as the real ones are: configuration, weights, tokenizer, processor.

The vocabulary is that of bytes and the words yes and no, so that either is a single token and neither is rare.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MERGES = ("Y e", "Ye s", "N o", "y e", "ye s", "n o", "Ġ Yes", "Ġ No", "Ġ yes", "Ġ no")
CHAT_TEMPLATE = """\
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}
{%- if part.type in ('image', 'image_url') %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{ part.text }}{% endif %}
{%- endfor %}
{%- endif %}{{ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
}
VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
}


def write_tiny_vlm(folder: str | Path, family: str, *, seed: int = 0, std: float = 0.2) -> str:
    """Writes a model of one of `FAMILIES` into `folder` and returns it. Weights are normal with deviation `std`."""
    folder = Path(folder)
    tokenizer = byte_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    common = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    text = TEXT | {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": ids["<|im_end|>"]}
    if family == "qwen2_5_vl":
        patch, name = 14, "Qwen2_5_VLProcessor"
        vision = VISION | {"patch_size": patch, "window_size": 56, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common)
        make = Qwen2_5_VLForConditionalGeneration
    else:
        patch, name = 16, "Qwen3VLProcessor"
        vision = VISION | {"patch_size": patch, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        config = Qwen3VLConfig(text_config=text | {"head_dim": 16}, vision_config=vision, **common)
        make = Qwen3VLForConditionalGeneration
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=std)
    # Some bytes end a text, so that random weights come to an end soon.
    ends = [ids["<|im_end|>"], *range(0, 256, 8)]
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.1, top_k=1, repetition_penalty=1.05, eos_token_id=ends
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": name,
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 256 * 256},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    videos = pictures | {"video_processor_type": "Qwen2VLVideoProcessor"}
    videos.pop("image_processor_type")
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    return str(folder)


def byte_tokenizer() -> Qwen2Tokenizer:
    """One token a byte, a few for yes and no, and the special ones."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
    return Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[tuple(merge.split()) for merge in MERGES],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
