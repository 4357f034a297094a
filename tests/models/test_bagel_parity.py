"""The network against upstream's own outputs on a tiny checkpoint (`--fixture DIR` names another of the same form)."""

from __future__ import annotations

import pytest
import torch

from project.guidance import Guidance
from project.models.bagel import Bagel
from project.models.context import Contexts
from project.models.query import Query


def near(ours, reference):
    error = (ours.float() - reference.float()).abs().max().item()
    assert error <= 2e-4 * max(1.0, reference.abs().max().item()), error


@pytest.fixture(scope="module")
def model(bagel_fixture):
    return Bagel.from_pretrained(str(bagel_fixture.directory))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def contexts_of(model, kind):
    return model.static_context(1, 256) if kind == "static" else model.functional_context(1)


def last_layer(model, context):
    """Keys and values of the last layer, [slots, heads, size] as upstream stores them."""
    empty = torch.zeros(1, model.cache_shape[1], 0, model.cache_shape[2])
    keys, values = context.extend(model.cache_shape[0] - 1, empty, empty) if context.slots else (empty, empty)
    return keys[0].transpose(0, 1), values[0].transpose(0, 1)


def test_text_logits(model, bagel_fixture):
    ids = bagel_fixture.tensor("text_logits.in.token_ids").long().view(1, -1)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    output = model(
        Query(ids_RT=ids, position_RT=torch.arange(ids.shape[1])[None], mask="causal", logits=everywhere), []
    )
    near(output.logits, bagel_fixture.tensor("text_logits.out.logits").view_as(output.logits))


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_understanding(model, bagel_fixture, kind):
    case, tensor = bagel_fixture.cases["understanding"], bagel_fixture.tensor
    context = model.append_picture(contexts_of(model, kind), [tensor("understanding.in.pixels")])
    context = model.append_text(context, [tensor("understanding.in.question_ids").long()])
    assert context.slots == case["outputs"]["kv_len"] and context.position_R.item() == case["outputs"]["next_rope"]
    keys, values = last_layer(model, context)
    order = torch.arange(context.slots)
    near(keys[order], tensor("understanding.out.last_layer_key_cache"))
    near(values[order], tensor("understanding.out.last_layer_value_cache"))
    context = context.select(torch.tensor([0]), room=16)
    _, text = model.sample_text(context, torch.zeros(1, 8), temperature=0)
    expected = tensor("understanding.out.greedy_ids").long().flatten()[1:]
    assert text.ids_RT[0].tolist() == expected.tolist()


def test_understanding_interleaved(model, bagel_fixture):
    case, tensor = bagel_fixture.cases["understanding_interleaved"], bagel_fixture.tensor
    context = model.append_text(model.static_context(1, 256), [tensor("understanding_interleaved.in.text1_ids").long()])
    for name in ("understanding.in.pixels", "understanding_interleaved.in.imageB_pixels"):
        context = model.append_picture(context, [tensor(name)])
    context = model.append_text(context, [tensor("understanding_interleaved.in.text2_ids").long()])
    assert context.slots == case["outputs"]["kv_len"] and context.position_R.item() == case["outputs"]["next_rope"]
    keys, _ = last_layer(model, context)
    near(keys, tensor("understanding_interleaved.out.last_layer_key_cache"))
    _, text = model.sample_text(context, torch.zeros(1, 8), temperature=0)
    expected = tensor(case["outputs"]["greedy_ids_start_plus_8"]).long().flatten()[1:]
    assert text.ids_RT[0].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_t2i_velocity(model, bagel_fixture, kind):
    case, tensor = bagel_fixture.cases["t2i_velocity"], bagel_fixture.tensor
    grid = model.latent_grid(*case["inputs"]["image_hw"])
    assert model.latent_index(grid).tolist() == tensor("t2i_velocity.out.latent_position_ids").tolist()
    main = model.append_text(contexts_of(model, kind), [tensor("t2i_velocity.in.prompt_ids").long()])
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


@pytest.mark.parametrize("kind", ["static", "functional"])
def test_edit_velocity(model, bagel_fixture, kind):
    case, tensor = bagel_fixture.cases["edit_velocity"], bagel_fixture.tensor
    inputs, outputs = case["inputs"], case["outputs"]
    pixels = tensor("edit_velocity.in.cond_vae_pixels")
    grid = model.latent_grid(*pixels.shape[-2:])
    main = model.append_latents(contexts_of(model, kind), model.encode_image(pixels[None]), grid)
    assert (
        main.slots == outputs["after_vae_block_kv_len"]
        and main.position_R.item() == outputs["after_vae_block_next_rope"]
    )
    main = model.append_picture(main, [tensor("edit_velocity.in.vit_pixels")])
    text_free = main.select(torch.tensor([0]), room=64)
    ids = [tensor("edit_velocity.in.prompt_ids").long()]
    main = model.append_text(main, ids)
    assert main.slots == outputs["kv_len"] and main.position_R.item() == outputs["next_rope"]
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
    pytest.importorskip("transformers")
    ids = next(tensor(v).long() for k, v in case["inputs"].items() if k.endswith("ids"))
    context = model.append_text(model.static_context(1, 256), [ids])
    name = next(v for k, v in case["outputs"].items() if "ids" in k)
    expected = tensor(name).long().flatten()[1:]
    _, text = model.sample_text(context, torch.zeros(1, len(expected)), temperature=0)
    assert text.ids_RT[0].tolist() == expected.tolist()
