"""Tiny checkpoints with random weights of GenEval's two networks: Mask2Former and CLIP, as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Mask2FormerConfig, SwinConfig

from project.benchmarks.geneval.items import COCO
from project.benchmarks.geneval.mask2former import network_class


def write_tiny_mask2former(folder: Path, *, seed: int = 0, sure: float = 40.0, classes: int = len(COCO)) -> str:
    """Writes a detector into `folder` and returns it. `sure` scales what names the classes: random ones are unsure."""
    stages = [f"stage{n}" for n in range(1, 5)]
    swin = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=stages, image_size=64
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=12,
        num_labels=classes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = network_class()(config)
        network.class_predictor.weight.data *= sure
    network.save_pretrained(folder)
    return str(folder)


def write_tiny_clip(folder: Path, *, seed: int = 0) -> str:
    """Writes a CLIP for pictures of 32x32 pixels into `folder` and returns it. Its vocabulary is that of bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[])
    common = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **common,
            "vocab_size": len(words),
            "max_position_embeddings": 77,
            "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,
            "pad_token_id": len(words) - 1,
        },
        vision_config={**common, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CLIPModel(config)
        for weight in network.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
