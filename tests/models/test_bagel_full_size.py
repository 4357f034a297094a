"""BAGEL-7B on the meta device: every key and shape of upstream's `ema.safetensors`, listed here by hand."""

from __future__ import annotations

import math

import torch

from project.cli.commands.plan import QUIET
from project.cli.unrecorded import UnrecordedCLI
from project.models.bagel.config import BAGEL_7B, BagelDefaults
from project.models.bagel.model import Bagel
from project.models.bagel.source import BagelCheckpoint

HIDDEN, INNER, LAYERS, KEYS, HEAD, WORDS = 3584, 18944, 28, 4 * 128, 128, 152064
VIT, VIT_INNER, VIT_LAYERS = 1152, 4304, 26


def linear(name, out, into, bias=True):
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def upstream():
    """name -> shape of the 1223 tensors."""
    language = "language_model.model"
    tensors = {f"{language}.embed_tokens.weight": (WORDS, HIDDEN), "language_model.lm_head.weight": (WORDS, HIDDEN)}
    for expert in ("", "_moe_gen"):
        tensors[f"{language}.norm{expert}.weight"] = (HIDDEN,)
        for n in range(LAYERS):
            layer = f"{language}.layers.{n}"
            for which, out in (("q", HIDDEN), ("k", KEYS), ("v", KEYS)):
                tensors |= linear(f"{layer}.self_attn.{which}_proj{expert}", out, HIDDEN)
            tensors |= linear(f"{layer}.self_attn.o_proj{expert}", HIDDEN, HIDDEN, bias=False)
            for which in ("q", "k"):
                tensors[f"{layer}.self_attn.{which}_norm{expert}.weight"] = (HEAD,)
            for which in ("gate", "up"):
                tensors |= linear(f"{layer}.mlp{expert}.{which}_proj", INNER, HIDDEN, bias=False)
            tensors |= linear(f"{layer}.mlp{expert}.down_proj", HIDDEN, INNER, bias=False)
            for which in ("input", "post_attention"):
                tensors[f"{layer}.{which}_layernorm{expert}.weight"] = (HIDDEN,)
    tensors |= linear("time_embedder.mlp.0", HIDDEN, 256) | linear("time_embedder.mlp.2", HIDDEN, HIDDEN)
    tensors |= linear("vae2llm", HIDDEN, 64) | linear("llm2vae", 64, HIDDEN)
    tensors |= linear("connector.fc1", HIDDEN, VIT) | linear("connector.fc2", HIDDEN, HIDDEN)
    tensors["latent_pos_embed.pos_embed"] = (64**2, HIDDEN)
    tensors["vit_pos_embed.pos_embed"] = (70**2, HIDDEN)
    vision = "vit_model.vision_model"
    tensors |= linear(f"{vision}.embeddings.patch_embedding", VIT, 588)
    tensors[f"{vision}.embeddings.position_embedding.weight"] = (4900, VIT)
    norms = [f"{vision}.post_layernorm"]
    for n in range(VIT_LAYERS):
        layer = f"{vision}.encoder.layers.{n}"
        for which in ("q", "k", "v", "out"):
            tensors |= linear(f"{layer}.self_attn.{which}_proj", VIT, VIT)
        tensors |= linear(f"{layer}.mlp.fc1", VIT_INNER, VIT) | linear(f"{layer}.mlp.fc2", VIT, VIT_INNER)
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    return tensors | {f"{norm}.{part}": (VIT,) for norm in norms for part in ("weight", "bias")}


class Words:
    unk_token_id = None

    def convert_tokens_to_ids(self, token):
        return 0


class NoAutoencoder(torch.nn.Module):
    pass


def test_the_list_is_that_of_the_facts():
    tensors = upstream()
    assert len(tensors) == 1223
    assert sum(math.prod(shape) for shape in tensors.values()) == 14_607_260_128


def test_every_key_and_shape():
    with torch.device("meta"):
        model = Bagel(BAGEL_7B, NoAutoencoder(), Words(), BagelDefaults())
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == upstream()


def test_the_recipe_is_set_up_with_its_optimizer(monkeypatch):
    """`configure_model` and `configure_optimizers` of rt2i.yaml: 14.6 billion weights, none of which is made."""
    options = ["--config=configs/bagel/rt2i.yaml", "--model.init_args.trainable.lora.init=gaussian"]
    module = UnrecordedCLI(["fit", *options, *QUIET]).model
    monkeypatch.setattr(BagelCheckpoint, "load", BagelCheckpoint.outline)
    with torch.device("meta"):
        module.configure_model()
        optimizer = module.configure_optimizers()
    made = dict(module.model.named_parameters())
    tensors = [*made.values(), *module.model.buffers(), *module.model.autoencoder.parameters()]
    assert all(tensor.is_meta for tensor in tensors)

    adapters = {name for name in made if ".lora_" in name}
    assert {name for name, p in made.items() if p.requires_grad} == adapters
    # 28 layers of two experts with 7 adapted layers each, A and B. Rank 32: (in + out) of q, o, k, v, gate, up, down.
    sides = 2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEYS) + 3 * (HIDDEN + INNER)
    assert len(adapters) == LAYERS * 2 * 7 * 2
    assert sum(made[name].numel() for name in adapters) == 32 * LAYERS * 2 * sides == 161_480_704
    assert all(made[name].dtype == torch.float32 for name in adapters)
    base = {name: p for name, p in made.items() if name not in adapters}
    assert sum(p.numel() for p in base.values()) == 14_607_260_128
    wide = {name for name, p in base.items() if p.dtype == torch.float32}
    assert wide == {"language_model.lm_head.weight", "llm2vae.weight", "llm2vae.bias"}
    assert all(p.dtype == torch.bfloat16 for name, p in base.items() if name not in wide)
    assert all(p.dtype == torch.float32 for p in module.model.autoencoder.parameters())

    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(made[name]) for name in adapters}
    assert (group["lr"], group["weight_decay"]) == (5e-5, 1e-4) and not optimizer.state
