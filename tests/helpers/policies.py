"""Two small policies unlike each other: BAGEL's architecture, and a dense one (see `backbones`)."""

from __future__ import annotations

import torch

from project.models.bagel import Bagel, BagelConfig
from project.models.bagel.config import BagelDefaults, VisionConfig
from project.models.bagel.flux_autoencoder import FluxAutoencoder, FluxAutoencoderConfig
from project.models.base import ModelSource
from project.shapes.umm import word_tokenizer
from tests.helpers.backbones import NewDenseModel


def dense_model():
    return NewDenseModel().load()


def tiny_bagel():
    tokenizer = word_tokenizer()
    config = BagelConfig(
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        vocab_size=len(tokenizer),
        rms_norm_eps=1e-6,
        rope_theta=1e4,
        vision=VisionConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, patch_size=4),
        latent_patch_size=2,
        max_latent_size=4,
        vit_max_num_patch_per_side=4,
        z_channels=4,
        vae_downsample=2,
    )
    autoencoder = FluxAutoencoder(FluxAutoencoderConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4))
    model = Bagel(
        config,
        autoencoder,
        tokenizer,
        BagelDefaults(
            think_prompt="think", reflect_prompt="reflect {prompt}", vae_sides=(8, 8, 4), vit_sides=(8, 8, 4)
        ),
    )
    for parameter in model.parameters():
        if parameter.ndim == 2 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


class TinyBagel(ModelSource):
    """A policy that reads pictures."""

    def load(self):
        torch.manual_seed(0)
        return tiny_bagel()
