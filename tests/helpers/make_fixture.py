"""Makes `tests/fixtures/bagel_tiny`: a tiny random checkpoint in BAGEL's layout, and what it must say.

    python -m tests.helpers.make_fixture

What is expected is computed by a slow way of its own: the whole sequence at once with an explicit mask (no context, no
cache), in float64. Guidance, resizing and the autoencoder are the project's code. Run it only at a state that passes
all cases of upstream's own outputs (`--fixture DIR`); the folder's README says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from project.models.bagel import Bagel, BagelConfig
from project.models.bagel.config import BagelDefaults, VisionConfig
from project.models.bagel.flux_autoencoder import FluxAutoencoder, FluxAutoencoderConfig
from project.models.bagel.image_transform import ImageTransform
from project.models.packing import Block, LatentBlock, PictureBlock, TextBlock, pack
from project.models.transforms import normalise, patchify, to_uint8, unpatchify
from project.models.weight_files import save_tensors
from project.samplers.guidance import Guidance, guide
from tests.helpers import ROOT

FOLDER = ROOT / "tests/fixtures/bagel_tiny"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
TEXTS = ["a small red cube on a blue table", "make the sky green", "what is in the picture?", "Hello, wörld! 12\n x"]
SIZE = (16, 24)
"""Height and width of what is drawn [pixels]."""
TRANSFORMS = {
    "vae": {"max_image_size": 1024, "min_image_size": 512, "image_stride": 16, "max_pixels": 1806336},
    "vit": {"max_image_size": 980, "min_image_size": 224, "image_stride": 14, "max_pixels": 1806336},
    "tiny_vae": {"max_image_size": 32, "min_image_size": 16, "image_stride": 4, "max_pixels": 1806336},
    "tiny_vit": {"max_image_size": 16, "min_image_size": 8, "image_stride": 4, "max_pixels": 1806336},
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[0], *SPECIAL[3:]],
    )


def make_model() -> Bagel:
    tokenizer = make_tokenizer()
    config = BagelConfig(
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        vocab_size=len(tokenizer),
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        vision=VisionConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, patch_size=4),
        max_latent_size=8,
        vit_max_num_patch_per_side=8,
        z_channels=4,
        vae_downsample=2,
    )
    autoencoder = FluxAutoencoder(
        FluxAutoencoderConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4, downsample=2)
    )
    model = Bagel(config, autoencoder, tokenizer, BagelDefaults(height=SIZE[0], width=SIZE[1]))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            mean = 1.0 if name.endswith("norm.weight") or ("norm" in name and name.endswith("weight")) else 0.0
            torch.nn.init.normal_(parameter, mean=mean, std=0.1 if parameter.ndim < 2 else 0.2)
    return model


class Recorder:
    """Collects cases and tensors; a tensor stands under its name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.cases: dict[str, Any] = {}

    def __call__(self, name: str, tensor: Tensor) -> str:
        kept = tensor.detach().cpu()
        self.tensors[name] = (kept.float() if kept.is_floating_point() else kept).contiguous().clone()
        return name


def whole(model: Bagel, blocks: list[Block]) -> Any:
    return model(pack(model, [blocks]).query, [])


def keys_values(model: Bagel, blocks: list[Block]) -> tuple[Tensor, ...]:
    """Of the last layer, [tokens, heads, size]: understanding tokens, then latents."""
    return tuple(x[0].transpose(0, 1) for x in whole(model, blocks).keys_values[-1])


def next_logits(model: Bagel, blocks: list[Block], written: list[int]) -> Tensor:
    return whole(model, [*blocks, TextBlock(ids_T=torch.tensor(written, dtype=torch.long), loss=True)]).logits[-1]


def greedy(model: Bagel, blocks: list[Block], number: int) -> list[int]:
    written: list[int] = []
    for _ in range(number):
        written.append(int(next_logits(model, blocks, written).argmax()))
    return written


def velocity(model: Bagel, blocks: list[Block], x_LD: Tensor, sigma: float, grid: tuple[int, int]) -> Tensor:
    noised = LatentBlock(latents_LD=x_LD, grid=grid, sigma=sigma, noise_LD=x_LD)
    return whole(model, [*blocks, noised]).velocity_RLD[0, -len(x_LD) :]


def guided(model: Bagel, sets: tuple[list[Block], ...], x_LD: Tensor, sigma: float, grid: Any, g: Guidance) -> Tensor:
    main, text_free, image_free = (velocity(model, blocks, x_LD, sigma, grid)[None] for blocks in sets)
    if not g.active(sigma):
        return main[0]
    return guide(main, text_free, image_free if g.image > 1 else None, g)[0]


def picture(generator: np.random.Generator, height: int, width: int) -> Tensor:
    small = generator.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(smooth))


def velocities(model: Bagel, record: Recorder) -> dict[str, tuple[Any, ...]]:
    """The cases t2i_velocity and edit_velocity; returns what is read in each."""
    rng, grid = np.random.default_rng(1), model.latent_grid(*SIZE)
    x_LD = torch.randn(grid[0] * grid[1], model.latent_size, dtype=torch.float64)
    drawn, edit = (torch.randint(5, 290, (n,)) for n in (7, 5))
    text: list[Block] = [TextBlock(ids_T=drawn)]
    sets = {"t2i": (text, [], text)}

    name = "t2i_velocity."
    outputs: dict[str, Any] = {
        "latent_position_ids": record(name + "out.latent_position_ids", model.latent_index(grid))
    }
    for kind, ours in zip(("key", "value"), keys_values(model, text), strict=True):
        outputs[f"last_layer_{kind}"] = record(f"{name}out.last_layer_{kind}_cache", ours)
    asked: dict[str, dict[str, Any]] = {
        "v_no_cfg": {"text": 1.0},
        "v_cfg4_global": {"text": 4.0, "renorm": "global"},
        "v_cfg4_channel": {"text": 4.0, "renorm": "channel"},
        "v_cfg4_text_channel": {"text": 4.0, "renorm": "text_channel"},
        "v_cfg4_global_min1": {"text": 4.0, "renorm": "global", "renorm_min": 1.0},
        "v_cfg4_channel_min07": {"text": 4.0, "renorm": "channel", "renorm_min": 0.7},
        "v_cfg4_img15_global": {"text": 4.0, "image": 1.5, "renorm": "global"},
    }
    for key, settings in asked.items():
        v = guided(model, sets["t2i"], x_LD, 0.7, grid, Guidance(interval=(0.0, 1.0), **settings))
        outputs[key] = record(f"{name}out.{key}", v)
    outputs["v_unconditional"] = record(name + "out.v_uncond", velocity(model, [], x_LD, 0.7, grid))
    record.cases["t2i_velocity"] = {
        "inputs": {
            "prompt_ids": record(name + "in.prompt_ids", drawn),
            "image_hw": list(SIZE),
            "x_t": record(name + "in.x_t", x_LD),
            "timestep": 0.7,
        },
        "outputs": outputs,
    }

    name = "edit_velocity."
    source, seen = picture(rng, *SIZE), picture(rng, 8, 12)
    source_CHW, seen_CHW = normalise(source), normalise(seen)
    latent = model.autoencoder.encode(source_CHW[None].double())
    clean = LatentBlock(latents_LD=patchify(latent, model.config.latent_patch_size)[0], grid=grid)
    looked: list[Block] = [clean, PictureBlock(pixels_CHW=seen_CHW)]
    words: list[Block] = [TextBlock(ids_T=edit)]
    sets["edit"] = ([*looked, *words], looked, words)
    count = len(clean.latents_LD)
    one, all_ = keys_values(model, [clean]), keys_values(model, [*looked, *words])

    def as_upstream(stored: Tensor) -> Tensor:
        """Start, latents, end, the others; here the latents stand last."""
        number = len(stored)
        order = [0, *range(number - count, number), *range(1, number - count)]
        return stored[order]

    outputs = {
        "cond_latent": record(name + "out.cond_latent", latent),
        "kv_len": len(all_[0]),
        "next_rope": 2 + len(edit) + 2,
        "after_vae_block_kv_len": count + 2,
        "after_vae_block_next_rope": 1,
        "after_vae_block_last_layer_key": record(name + "out.after_vae_last_key", as_upstream(one[0])),
    }
    for kind, ours in zip(("key", "value"), all_, strict=True):
        outputs[f"last_layer_{kind}"] = record(f"{name}out.last_layer_{kind}_cache", as_upstream(ours))
    asked = {
        "v_no_cfg": {"text": 1.0},
        "v_cfg_text4_img2_global": {"text": 4.0, "image": 2.0, "renorm": "global"},
        "v_cfg_text4_img2_channel": {"text": 4.0, "image": 2.0, "renorm": "channel"},
        "v_cfg_text4_img2_text_channel": {"text": 4.0, "image": 2.0, "renorm": "text_channel"},
        "v_img2_text1": {"text": 1.0, "image": 2.0},
    }
    for key, settings in asked.items():
        v = guided(model, sets["edit"], x_LD, 0.7, grid, Guidance(interval=(0.0, 1.0), **settings))
        outputs[key] = record(f"{name}out.{key}", v)
    record.cases["edit_velocity"] = {
        "inputs": {
            "cond_image_uint8_hwc": record(name + "in.cond_image_u8", source),
            "cond_vae_pixels": record(name + "in.cond_vae_pixels", source_CHW),
            "vit_image_uint8_hwc": record(name + "in.vit_image_u8", seen),
            "vit_pixels": record(name + "in.vit_pixels", seen_CHW),
            "prompt_ids": record(name + "in.prompt_ids", edit),
            "image_hw": list(SIZE),
            "x_t": record(name + "in.x_t", x_LD),
            "timestep": 0.7,
        },
        "outputs": outputs,
    }
    return sets


def odes(model: Bagel, record: Recorder, sets: dict[str, tuple[Any, ...]]) -> None:
    grid, patch = model.latent_grid(*SIZE), model.config.latent_patch_size
    noise = torch.randn(grid[0] * grid[1], model.latent_size, dtype=torch.float64)
    common = {"interval": (0.4, 1.0), "renorm": "global"}
    for name, kind, number, settings in (
        ("ode_t2i_num_timesteps5", "t2i", 5, {"text": 4.0, "image": 1.0, **common}),
        ("ode_t2i_no_cfg", "t2i", 4, {"text": 1.0, "image": 1.0, **common}),
        ("ode_edit", "edit", 5, {"text": 4.0, "image": 2.0, "interval": (0.0, 1.0), "renorm": "text_channel"}),
    ):
        guidance = Guidance(**settings)
        t = torch.linspace(1, 0, number, dtype=torch.float64)
        sigma = 3.0 * t / (1 + 2.0 * t)
        x, path = noise, []
        for now, then in zip(sigma.tolist(), sigma.tolist()[1:], strict=False):
            path.append(x)
            x = x + (then - now) * guided(model, sets[kind], x, now, grid, guidance)
        nchw = unpatchify(x[None], grid[0] * patch, grid[1] * patch, patch, model.config.z_channels)
        decoded = model.decode_latents(x[None], grid)
        record.cases[name] = {
            "inputs": {
                "initial_noise": record("ode.in.initial_noise", noise),
                "image_hw": list(SIZE),
                "num_timesteps": number,
                "timestep_shift": 3.0,
                "cfg_text_scale": guidance.text,
                "cfg_img_scale": guidance.image,
                "cfg_interval": list(guidance.interval),
                "cfg_renorm_min": guidance.renorm_min,
                "cfg_renorm_type": guidance.renorm,
            },
            "outputs": {
                "n_model_evals": number - 1,
                "timesteps": record(f"{name}.out.timesteps", sigma[:-1]),
                "cfg_text_scale_used": [guidance.text if guidance.active(s) else 1.0 for s in sigma[:-1].tolist()],
                "x_t_before_each_eval": record(f"{name}.out.x_t", torch.stack(path)),
                "final_packed_latent": record(f"{name}.out.final_latent", x),
                "final_latent_nchw": record(f"{name}.out.final_latent_nchw", nchw),
                "decoded": record(f"{name}.out.decoded", decoded),
                "decoded_uint8_hwc": record(f"{name}.out.decoded_u8", to_uint8(decoded)[0]),
            },
        }


def texts_and_pictures(model: Bagel, record: Recorder) -> None:
    rng = np.random.default_rng(2)
    ids = torch.randint(5, 290, (1, 9))
    # A text that is read is causal: start and end are the first and the last of the given tokens.
    shown = TextBlock(ids_T=ids[0, 1:-1], loss=False)
    start, end = model.special.text_start, model.special.text_end
    ids = torch.cat([torch.tensor([[start]]), shown.ids_T[None], torch.tensor([[end]])], 1)
    query = pack(model, [[shown]]).query
    normed: list[Tensor] = []
    hook = model.language_model.model.norm.register_forward_hook(lambda *call: normed.append(call[-1]))
    output = model(type(query)(**{**vars(query), "logits": torch.ones_like(query.ids_RT, dtype=torch.bool)}), [])
    hook.remove()
    record.cases["text_logits"] = {
        "inputs": {"token_ids": record("text_logits.in.token_ids", ids)},
        "outputs": {
            "logits": record("text_logits.out.logits", output.logits),
            "hidden_after_final_norm": record("text_logits.out.hidden", normed[0]),
        },
    }

    image, question = picture(rng, 12, 8), torch.randint(5, 290, (6,))
    pixels = normalise(image)
    blocks: list[Block] = [PictureBlock(pixels_CHW=pixels), TextBlock(ids_T=question)]
    stored, answer = keys_values(model, blocks), greedy(model, blocks, 8)
    patches, index = model.picture_patches(pixels.double())
    hidden = model.vit_model.vision_model(patches[None], index[None], torch.ones(1, len(patches), dtype=torch.bool))
    name = "understanding."
    record.cases["understanding"] = {
        "inputs": {
            "image_uint8_hwc": record(name + "in.image_u8", image),
            "pixel_tensor_chw": record(name + "in.pixels", pixels),
            "question_ids": record(name + "in.question_ids", question),
        },
        "outputs": {
            "vit_position_ids": record(name + "out.vit_position_ids", index),
            "vit_patches": record(name + "out.vit_patches", patches),
            "vit_post_layernorm": record(name + "out.vit_hidden", hidden[0]),
            "vit_embed_into_llm": record(
                name + "out.vit_embed", (model.connector(hidden) + model.vit_pos_embed(index))[0]
            ),
            "next_token_logits": record(name + "out.next_token_logits", next_logits(model, blocks, [])[None]),
            "kv_len": len(stored[0]),
            "next_rope": 1 + len(question) + 2,
            "last_layer_key": record(name + "out.last_layer_key_cache", stored[0]),
            "last_layer_value": record(name + "out.last_layer_value_cache", stored[1]),
            "greedy_ids_start_plus_8": record(name + "out.greedy_ids", torch.tensor([start, *answer])),
        },
    }

    prompt = torch.randint(5, 290, (6,))
    written = greedy(model, [TextBlock(ids_T=prompt)], 8)
    stop = written[5]
    record.cases["greedy_text"] = {
        "inputs": {"prompt_ids": record("greedy_text.in.prompt_ids", prompt)},
        "outputs": {
            "upstream_max_length_9": record("greedy_text.out.ids_start_plus_8", torch.tensor([start, *written])),
            "end_token_id_for_stop_run": stop,
            "ids_when_stopped": record(
                "greedy_text.out.ids_stopped", torch.tensor([start, *written[: written.index(stop)]])
            ),
        },
    }

    image = picture(rng, *SIZE)
    pixels = normalise(image)[None]
    mean, std = model.autoencoder.posterior(pixels.double())
    latent = model.autoencoder.encode(pixels.double())
    record.cases["vae"] = {
        "inputs": {
            "image_uint8_hwc": record("vae.in.image_u8", image),
            "pixels": record("vae.in.pixels", pixels),
        },
        "outputs": {
            "encoder_moments": record("vae.out.moments", torch.cat([mean, 2 * std.log()], 1)),
            "latent": record("vae.out.latent", latent),
            "decoded": record("vae.out.decoded", model.autoencoder.decode(latent)),
        },
    }

    made = {
        name: ImageTransform(
            max_size=numbers["max_image_size"],
            min_size=numbers["min_image_size"],
            stride=numbers["image_stride"],
            max_pixels=numbers["max_pixels"],
        )
        for name, numbers in TRANSFORMS.items()
    }
    image = picture(rng, 37, 53)
    shown_image = Image.fromarray(image.numpy())
    table = []
    for name, transform in made.items():
        for width, height in rng.integers(10, 3000, size=(10, 2)).tolist():
            out_height, out_width = transform.size(height, width)
            table.append([name, width, height, 1, out_width, out_height])
    name = "image_transform."
    record.cases["image_transform"] = {
        "transforms": TRANSFORMS,
        "size_table": table,
        "inputs": {"image_uint8_hwc": record(name + "in.image_u8", image)},
        "outputs": {
            **{key: record(f"{name}out.{key}", made[key](shown_image)) for key in ("tiny_vae", "tiny_vit")},
            "tiny_vae_resized_uint8_hwc": record(
                name + "out.tiny_vae_resized_u8", torch.from_numpy(np.array(made["tiny_vae"].resize(shown_image)))
            ),
        },
    }


@torch.no_grad()
def make(folder: Path) -> None:
    """Writes the checkpoint and what is expected of it."""
    torch.manual_seed(20261129)
    folder.mkdir(parents=True, exist_ok=True)
    made = make_model()
    made.save_pretrained(folder, torch.float16)
    made.autoencoder.save(folder, torch.float16)
    # As the files say it: half-precision weights, widened.
    model = Bagel.from_pretrained(str(folder)).double()
    record = Recorder()
    texts_and_pictures(model, record)
    odes(model, record, velocities(model, record))
    assert all(tensor.isfinite().all() for tensor in record.tensors.values())
    assert math.isclose(float(record.tensors["ode_edit.out.timesteps"][0]), 1.0)
    save_tensors(record.tensors, folder / "expected.safetensors")
    expected = {
        "fixture": "made by tests/helpers/make_fixture.py",
        "tokenizer_check": {text: model.encode_text(text).tolist() for text in TEXTS},
        "cases": record.cases,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(FOLDER)
