"""A new unified model for the embedded world, with random weights and a trained autoencoder."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from project.models.bagel import Bagel, BagelConfig
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BagelDefaults, VisionConfig
from project.models.base import ModelSource
from project.shapes.grammar import REFLECT, THINK, vocabulary
from project.shapes.scenes import PICTURE_SIZE

log = logging.getLogger(__name__)

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<unk>")

DEFAULTS = BagelDefaults(
    think_prompt=THINK,
    ask_think_prompt=THINK,
    reflect_prompt=f"{REFLECT} {{prompt}}",
    height=PICTURE_SIZE,
    width=PICTURE_SIZE,
    num_steps=11,
    guidance=2.5,
    guidance_interval=(0.0, 1.0),
    max_tokens=16,
    top_p=0.3,
    vae_sides=(PICTURE_SIZE, PICTURE_SIZE, 16),
    vit_sides=(PICTURE_SIZE, PICTURE_SIZE, 16),
)


class NewEmbeddedModel(ModelSource):
    """BAGEL's architecture in miniature, for the 64x64 pictures and the words of the embedded world.

    Args:
        hidden_size, intermediate_size, num_layers, num_heads: of the language model (both experts).
        vision_hidden_size, vision_layers, vision_patch_size: of the vision tower.
        position_scale: of the frozen position tables, relative to embeddings of standard deviation `init_std`.
        init_std: of the weights.
        vision_position_std: of the vision tower's position embeddings. Patches are about 1, so at 1 it can tell at once
            where they stand.
        autoencoder: folder of a trained autoencoder to use; None trains one.
        autoencoder_steps: of training its decoder.
        seed: of the weights.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        intermediate_size: int = 384,
        num_layers: int = 6,
        num_heads: int = 4,
        vision_hidden_size: int = 64,
        vision_layers: int = 2,
        vision_patch_size: int = 16,
        position_scale: float = 0.6,
        init_std: float = 0.05,
        vision_position_std: float = 0.05,
        autoencoder: str | None = None,
        autoencoder_steps: int = 1200,
        seed: int = 0,
    ) -> None:
        self.config = BagelConfig(
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            vocab_size=len(SPECIAL_TOKENS) + len(vocabulary()),
            rms_norm_eps=1e-6,
            rope_theta=10_000.0,
            vision=VisionConfig(
                hidden_size=vision_hidden_size,
                intermediate_size=2 * vision_hidden_size,
                num_layers=vision_layers,
                num_heads=4,
                patch_size=vision_patch_size,
            ),
            latent_patch_size=2,
            max_latent_size=8,
            vit_max_num_patch_per_side=8,
            position_scale=position_scale,
        )
        self.init_std = init_std
        self.vision_position_std = vision_position_std
        self.autoencoder = autoencoder
        self.autoencoder_steps = autoencoder_steps
        self.seed = seed

    def load(self) -> Bagel:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            # Pictures of other sizes are resized to whole patches.
            sides = (PICTURE_SIZE, PICTURE_SIZE, self.config.vision.patch_size)
            defaults = replace(DEFAULTS, vit_sides=sides)
            model = Bagel(self.config, self._autoencoder(), word_tokenizer(), defaults)
            torch.manual_seed(self.seed)
            for module in model.modules():
                if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                    torch.nn.init.normal_(module.weight, std=self.init_std)
                if isinstance(module, torch.nn.Linear) and module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
            positions = model.vit_model.vision_model.embeddings.position_embedding
            torch.nn.init.normal_(positions.weight, std=self.vision_position_std)
        # Velocities start at zero, the mean of what is to be predicted given nothing.
        torch.nn.init.zeros_(model.llm2vae.weight)
        return model

    def _autoencoder(self) -> Autoencoder:
        if self.autoencoder is not None:
            return Autoencoder.from_directory(self.autoencoder)
        from project.shapes.autoencoder import train_autoencoder

        return train_autoencoder(self.autoencoder_steps, self.seed)


def word_tokenizer() -> Any:
    """One token a word of the embedded world, split at white space; words it does not know become `<unk>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate((*SPECIAL_TOKENS, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|endoftext|>", "<|vision_start|>", "<|vision_end|>"],
    )
