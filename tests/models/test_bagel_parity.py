"""The network against upstream's own outputs on a tiny checkpoint (`--fixture DIR` names another of the same form)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from project.inference.pipeline import UnifiedPipeline
from project.models.bagel import Bagel
from project.models.bagel.image_transform import ImageTransform
from project.models.context import Contexts
from project.models.query import Query
from project.models.transforms import normalise, patchify, to_uint8
from project.samplers.guidance import Guidance
from tests.conftest import references
from tests.helpers.sampling import ode

ROOM = 4096
"""Slots of a context: more than any case of a fixture reads."""


@pytest.fixture(scope="module")
def model(bagel_fixture):
    return Bagel.from_pretrained(str(bagel_fixture.directory))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def contexts_of(model, kind):
    return model.static_context(1, ROOM) if kind == "static" else model.functional_context(1)


def last_layer(model, context):
    """Keys and values of the last layer, [slots, heads, size] as upstream stores them."""
    empty = torch.zeros(1, model.cache_shape[1], 0, model.cache_shape[2])
    keys, values = context.extend(model.cache_shape[0] - 1, empty, empty) if context.slots else (empty, empty)
    return keys[0].transpose(0, 1), values[0].transpose(0, 1)


def named(outputs, prefix):
    """The tensor name or number under the key that begins so (its end tells a length)."""
    (value,) = (value for key, value in outputs.items() if key.startswith(prefix))
    return value


def written_after_start(bagel_fixture, outputs, prefix):
    """Greedy tokens without the start token that upstream returns too."""
    return bagel_fixture.tensor(named(outputs, prefix)).long().flatten()[1:].tolist()


def test_text_logits(model, bagel_fixture, near):
    ids = bagel_fixture.tensor("text_logits.in.token_ids").long().view(1, -1)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    normed = []
    hook = model.language_model.model.norm.register_forward_hook(lambda *call: normed.append(call[-1]))
    output = model(
        Query(ids_RT=ids, position_RT=torch.arange(ids.shape[1])[None], mask="causal", logits=everywhere), []
    )
    hook.remove()
    hidden = bagel_fixture.tensor("text_logits.out.hidden")
    near(normed[0].view_as(hidden), hidden)
    near(output.logits, bagel_fixture.tensor("text_logits.out.logits").view_as(output.logits))


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_understanding(model, bagel_fixture, near, kind):
    case, tensor = bagel_fixture.cases["understanding"], bagel_fixture.tensor
    context = model.append_picture(contexts_of(model, kind), [tensor("understanding.in.pixels")])
    context = model.append_text(context, [tensor("understanding.in.question_ids").long()])
    assert context.slots == case["outputs"]["kv_len"] and context.position_R.item() == case["outputs"]["next_rope"]
    keys, values = last_layer(model, context)
    order = torch.arange(context.slots)
    near(keys[order], tensor("understanding.out.last_layer_key_cache"))
    near(values[order], tensor("understanding.out.last_layer_value_cache"))
    start = torch.tensor([[model.special.text_start]])
    query = Query(ids_RT=start, position_RT=context.position_R[:, None], mask="causal", logits="last")
    context = context.select(torch.tensor([0]), room=ROOM)
    near(model(query, [context]).logits, tensor("understanding.out.next_token_logits"))
    expected = written_after_start(bagel_fixture, case["outputs"], "greedy_ids")
    _, text = model.sample_text(context, torch.zeros(1, len(expected)), temperature=0)
    assert text.ids_RT[0].tolist() == expected


def test_understanding_picture(model, bagel_fixture, near):
    tensor, out = bagel_fixture.tensor, "understanding.out."
    pixels = tensor("understanding.in.pixels")
    assert torch.equal(normalise(tensor("understanding.in.image_u8")), pixels)
    patches, index = model.picture_patches(pixels)
    assert index.tolist() == tensor(out + "vit_position_ids").tolist()
    near(patches, tensor(out + "vit_patches"))
    everything = torch.ones(1, len(patches), dtype=torch.bool)
    features = model.vit_model.vision_model(patches[None], index[None], everything)
    near(features[0], tensor(out + "vit_hidden"))
    near((model.connector(features) + model.vit_pos_embed(index))[0], tensor(out + "vit_embed"))


def test_understanding_interleaved(model, bagel_fixture, near):
    case, tensor = bagel_fixture.cases["understanding_interleaved"], bagel_fixture.tensor
    context = model.append_text(
        model.static_context(1, ROOM), [tensor("understanding_interleaved.in.text1_ids").long()]
    )
    for name in ("understanding.in.pixels", "understanding_interleaved.in.imageB_pixels"):
        context = model.append_picture(context, [tensor(name)])
    context = model.append_text(context, [tensor("understanding_interleaved.in.text2_ids").long()])
    assert context.slots == case["outputs"]["kv_len"] and context.position_R.item() == case["outputs"]["next_rope"]
    keys, values = last_layer(model, context)
    near(keys, tensor("understanding_interleaved.out.last_layer_key_cache"))
    near(values, tensor("understanding_interleaved.out.last_layer_value_cache"))
    expected = written_after_start(bagel_fixture, case["outputs"], "greedy_ids")
    _, text = model.sample_text(context, torch.zeros(1, len(expected)), temperature=0)
    assert text.ids_RT[0].tolist() == expected


def test_vae_reads_normalised_levels(bagel_fixture):
    pixels = bagel_fixture.tensor("vae.in.pixels")
    assert torch.equal(normalise(bagel_fixture.tensor("vae.in.image_u8")).view_as(pixels), pixels)


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_t2i_velocity(model, bagel_fixture, near, kind):
    case, tensor = bagel_fixture.cases["t2i_velocity"], bagel_fixture.tensor
    grid = model.latent_grid(*case["inputs"]["image_hw"])
    assert model.latent_index(grid).tolist() == tensor("t2i_velocity.out.latent_position_ids").tolist()
    main = model.append_text(contexts_of(model, kind), [tensor("t2i_velocity.in.prompt_ids").long()])
    for ours, name in zip(last_layer(model, main), ("key", "value"), strict=True):
        near(ours, tensor(f"t2i_velocity.out.last_layer_{name}_cache"))
    both = Contexts(main=main, text_free=contexts_of(model, kind), image_free=main)
    x, sigma = tensor("t2i_velocity.in.x_t")[None, None], torch.tensor([case["inputs"]["timestep"]])

    def velocity(**settings):
        return model.velocity(x, sigma, both, Guidance(interval=(0.0, 1.0), **settings), grid)[0, 0]

    out = "t2i_velocity.out."
    near(velocity(text=1.0), tensor(out + "v_no_cfg"))
    near(velocity(text=4.0, renorm="global"), tensor(out + "v_cfg4_global"))
    near(velocity(text=4.0, renorm="channel"), tensor(out + "v_cfg4_channel"))
    near(velocity(text=4.0, renorm="text_channel"), tensor(out + "v_cfg4_text_channel"))
    near(velocity(text=4.0, renorm="global", renorm_min=1.0), tensor(out + "v_cfg4_global_min1"))
    near(velocity(text=4.0, renorm="channel", renorm_min=0.7), tensor(out + "v_cfg4_channel_min07"))
    near(velocity(text=4.0, image=1.5, renorm="global"), tensor(out + "v_cfg4_img15_global"))
    free = Contexts(main=contexts_of(model, kind), text_free=main)
    near(model.velocity(x, sigma, free, Guidance(text=1.0), grid)[0, 0], tensor(out + "v_uncond"))


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_edit_velocity(model, bagel_fixture, near, kind):
    case, tensor = bagel_fixture.cases["edit_velocity"], bagel_fixture.tensor
    inputs, outputs = case["inputs"], case["outputs"]
    pixels = tensor("edit_velocity.in.cond_vae_pixels")
    for name, shown in (("cond_image", "cond_vae_pixels"), ("vit_image", "vit_pixels")):
        assert torch.equal(normalise(tensor(f"edit_velocity.in.{name}_u8")), tensor(f"edit_velocity.in.{shown}"))
    near(model.autoencoder.encode(pixels[None]), tensor("edit_velocity.out.cond_latent"))
    grid = model.latent_grid(*pixels.shape[-2:])
    main = model.append_latents(contexts_of(model, kind), model.encode_image(pixels[None]), grid)
    # Ours stores a picture's delimiters before its latents.
    stored = torch.tensor([0, *range(2, main.slots), 1])
    near(last_layer(model, main)[0][stored], tensor("edit_velocity.out.after_vae_last_key"))
    assert (
        main.slots == outputs["after_vae_block_kv_len"]
        and main.position_R.item() == outputs["after_vae_block_next_rope"]
    )
    main = model.append_picture(main, [tensor("edit_velocity.in.vit_pixels")])
    text_free = main.select(torch.tensor([0]), room=ROOM)
    ids = [tensor("edit_velocity.in.prompt_ids").long()]
    main = model.append_text(main, ids)
    assert main.slots == outputs["kv_len"] and main.position_R.item() == outputs["next_rope"]
    stored = torch.cat([stored, torch.arange(len(stored), main.slots)])
    for ours, name in zip(last_layer(model, main), ("key", "value"), strict=True):
        near(ours[stored], tensor(f"edit_velocity.out.last_layer_{name}_cache"))
    contexts = Contexts(main=main, text_free=text_free, image_free=model.append_text(contexts_of(model, kind), ids))
    x, sigma = tensor("edit_velocity.in.x_t")[None, None], torch.tensor([inputs["timestep"]])
    target = model.latent_grid(*inputs["image_hw"])

    def velocity(**settings):
        return model.velocity(x, sigma, contexts, Guidance(interval=(0.0, 1.0), **settings), target)[0, 0]

    out = "edit_velocity.out."
    near(velocity(text=1.0), tensor(out + "v_no_cfg"))
    near(velocity(text=4.0, image=2.0, renorm="global"), tensor(out + "v_cfg_text4_img2_global"))
    near(velocity(text=4.0, image=2.0, renorm="channel"), tensor(out + "v_cfg_text4_img2_channel"))
    near(velocity(text=4.0, image=2.0, renorm="text_channel"), tensor(out + "v_cfg_text4_img2_text_channel"))
    near(velocity(text=1.0, image=2.0), tensor(out + "v_img2_text1"))


def test_greedy_text(model, bagel_fixture):
    case, tensor = bagel_fixture.cases["greedy_text"], bagel_fixture.tensor
    outputs = case["outputs"]
    context = model.append_text(model.static_context(1, ROOM), [tensor(case["inputs"]["prompt_ids"]).long()])

    def written(tokens):
        _, text = model.sample_text(context.select(torch.tensor([0]), room=ROOM), torch.zeros(1, tokens), temperature=0)
        return text.ids_RT[0, : text.length_R[0]].tolist(), text.finished_R.item()

    expected = written_after_start(bagel_fixture, outputs, "upstream_max_length")
    assert written(len(expected))[0] == expected
    stopped = written_after_start(bagel_fixture, outputs, "ids_when_stopped")
    end, model.special = model.special, replace(model.special, text_end=outputs["end_token_id_for_stop_run"])
    try:
        assert written(len(expected)) == ([*stopped, outputs["end_token_id_for_stop_run"]], True)
    finally:
        model.special = end


# --------------------------------------------------------------------- whole pictures and answers


def pytest_generate_tests(metafunc):
    """The cases of two families are those of all reference data; a test skips what its own lack."""
    if "case" in metafunc.fixturenames:
        family = {"test_ode": "ode_", "test_inferencer": "inferencer_"}[metafunc.function.__name__]
        files = [directory / "expected.json" for directory in references(metafunc.config)]
        cases = [json.loads(file.read_text(encoding="utf-8"))["cases"] for file in files]
        metafunc.parametrize("case", sorted({name for some in cases for name in some if name.startswith(family)}))


def guidance_of(inputs):
    return Guidance(
        text=inputs["cfg_text_scale"],
        image=inputs.get("cfg_img_scale", 1.5),
        interval=tuple(inputs["cfg_interval"]),
        renorm=inputs["cfg_renorm_type"],
        renorm_min=inputs["cfg_renorm_min"],
    )


def velocity_contexts(model, tensor, edit):
    """Those of the cases `t2i_velocity` and `edit_velocity`."""
    if not edit:
        main = model.append_text(model.static_context(1, ROOM), [tensor("t2i_velocity.in.prompt_ids").long()])
        return Contexts(main=main, text_free=model.static_context(1, ROOM), image_free=main)
    ids = [tensor("edit_velocity.in.prompt_ids").long()]
    pixels = tensor("edit_velocity.in.cond_vae_pixels")
    main = model.static_context(1, ROOM)
    main = model.append_latents(main, model.encode_image(pixels[None]), model.latent_grid(*pixels.shape[-2:]))
    main = model.append_picture(main, [tensor("edit_velocity.in.vit_pixels")])
    text_free = main.select(torch.tensor([0]), room=ROOM)
    image_free = model.append_text(model.static_context(1, ROOM), ids)
    return Contexts(main=model.append_text(main, ids), text_free=text_free, image_free=image_free)


def test_ode(model, bagel_fixture, near, record_error, case):
    inputs, outputs = (bagel_fixture.cases[case][key] for key in ("inputs", "outputs"))
    tensor = bagel_fixture.tensor
    guidance, grid = guidance_of(inputs), model.latent_grid(*inputs["image_hw"])
    contexts = velocity_contexts(model, tensor, edit="edit" in case)
    sampler = ode(inputs["num_timesteps"], inputs["timestep_shift"])
    assert sampler.evaluations == outputs["n_model_evals"]
    used = [guidance.text if guidance.active(sigma) else 1.0 for sigma in sampler.sigma_N[:-1].tolist()]
    assert used == outputs["cfg_text_scale_used"]
    near(sampler.sigma_N[:-1], tensor(outputs["timesteps"]))
    x, path = tensor(inputs["initial_noise"])[None], []
    for step in range(sampler.evaluations):
        path.append(x[0])
        v = model.velocity(x[:, None], sampler.sigma_N[step : step + 1], contexts, guidance, grid)[:, 0]
        x = sampler.euler(x, v, torch.tensor([step]))
    near(torch.stack(path), tensor(outputs["x_t_before_each_eval"]))
    near(x[0], tensor(outputs["final_packed_latent"]))
    if "final_latent_nchw" in outputs:
        near(patchify(tensor(outputs["final_latent_nchw"]), model.config.latent_patch_size), x)
    decoded = model.decode_latents(x, grid)
    near(decoded[0], tensor(outputs["decoded"]).view_as(decoded[0]))
    same_picture(to_uint8(decoded)[0], tensor(outputs["decoded_uint8_hwc"]))


def test_inferencer(model, bagel_fixture, record_error, case):
    """Strings and pictures end to end; with reasoning, which upstream decodes and encodes again."""
    inputs, outputs = (bagel_fixture.cases[case][key] for key in ("inputs", "outputs"))
    transforms = bagel_fixture.cases["image_transform"]["transforms"]
    pipe = UnifiedPipeline(model, *(transform_of(transforms[inputs[f"{name}_transform"]]) for name in ("vae", "vit")))
    image = None
    if "image_uint8_hwc" in inputs:
        image = Image.fromarray(bagel_fixture.tensor(inputs["image_uint8_hwc"]).numpy())
    think, limit = inputs.get("think", False), inputs.get("max_think_token_n", 1) - 1
    if inputs.get("understanding_output"):
        (answer,) = pipe.ask(inputs["text"], image, think=think, max_tokens=limit)
        assert answer == outputs["text"]
        record_error(case, 0.0, 0.0)
        return
    height, width = inputs.get("image_shapes", (None, None))
    drawn = pipe(
        inputs["text"],
        image,
        think=think,
        height=height,
        width=width,
        num_steps=inputs["num_timesteps"],
        shift=inputs["timestep_shift"],
        guidance=guidance_of(inputs),
        latents=[bagel_fixture.tensor(inputs["initial_noise"])],
        max_tokens=limit,
        temperature=0.0,
        retokenize=True,
    )
    assert drawn.texts == [outputs.get("text")]
    levels = same_picture(torch.from_numpy(np.array(drawn.images[0])), bagel_fixture.tensor(outputs["image_uint8_hwc"]))
    record_error(case, levels, 1.0)


def test_tokenizer(model, bagel_fixture, record_error):
    checked = bagel_fixture.expected["tokenizer_check"]
    assert checked
    for text, ids in checked.items():
        assert model.encode_text(text, control=True).tolist() == ids
        spelled = model.encode_text(text).tolist()
        assert model.tokenizer.decode(spelled) == text and not set(spelled) & set(model.tokenizer.all_special_ids)
    record_error("tokenizer_check", 0.0, 0.0)


def test_every_case_is_exercised(bagel_fixture):
    elsewhere = {
        "vae": "test_autoencoder.py",
        "image_transform": "test_transforms.py",
        "packing": "test_packing.py",
        "packing_all_conditions_dropped": "test_packing.py",
        "train_forward": "test_packing.py",
        "train_forward_freeze_und": "test_packing.py",
    }
    here = {"text_logits", "understanding", "understanding_interleaved", "t2i_velocity", "edit_velocity", "greedy_text"}
    known = here | elsewhere.keys()
    unknown = [n for n in bagel_fixture.cases if n not in known and not n.startswith(("ode_", "inferencer_"))]
    assert not unknown, f"no test reads the cases {unknown}"


def transform_of(numbers):
    return ImageTransform(
        max_size=numbers["max_image_size"],
        min_size=numbers["min_image_size"],
        stride=numbers["image_stride"],
        max_pixels=numbers["max_pixels"],
    )


def same_picture(ours, reference):
    """At most 1 level apart, on less than 1% of the values; returns the largest difference [levels]."""
    difference = (ours.int() - reference.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01
    return float(difference.max())
