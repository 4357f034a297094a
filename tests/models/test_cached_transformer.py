"""What holds for every cached transformer: room that is asked for is room that is taken, and packing counts alike."""

from __future__ import annotations

import pytest
import torch

from project.models.base import UnifiedModel
from project.models.cached_transformer import CachedTransformer
from project.models.packing import DroppedPicture, LatentBlock, PictureBlock, TextBlock, pack
from tests.helpers.policies import dense_model, tiny_bagel


@pytest.fixture(params=[tiny_bagel, dense_model], ids=["bagel", "dense"])
def model(request):
    return request.param()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


IDS = [torch.tensor([5, 6, 7]), torch.tensor([8])]


def blocks_of(model):
    """A context that has read a text and a clean picture, and the same as blocks of a packed example."""
    grid, pixels = model.latent_grid(8, 8), torch.rand(1, 3, 8, 8) * 2 - 1
    clean = model.encode_image(pixels)
    context = model.append_text(model.functional_context(1), IDS[:1])
    blocks = [TextBlock(ids_T=IDS[0])]
    if model_reads_pictures(model):
        context = model.append_picture(context, list(pixels))
        blocks.append(PictureBlock(pixels_CHW=pixels[0]))
    context = model.append_latents(context, clean, grid)
    return context, [*blocks, LatentBlock(latents_LD=clean[0], grid=grid)]


def model_reads_pictures(model):
    try:
        return model.picture_room(8, 8) > 0
    except ValueError:
        return False


def test_room_that_is_asked_for_is_room_that_is_taken(model):
    grid = model.latent_grid(8, 8)
    room = model.text_room(3) + model.latent_room(grid)
    context = model.append_text(model.static_context(2, room), IDS)
    assert context.slots == model.text_room(3)
    context = model.append_latents(context, torch.zeros(2, grid[0] * grid[1], model.latent_size), grid)
    assert context.slots == room == context.capacity
    written, _ = model.sample_text(context.select(torch.tensor([0, 1]), room=model.text_room(4)), torch.rand(2, 4))
    assert written.slots <= room + model.text_room(4)
    if model_reads_pictures(model):
        looked = model.append_picture(model.static_context(1, model.picture_room(8, 4)), [torch.zeros(3, 8, 4)])
        assert looked.slots == looked.capacity


def test_a_text_may_be_read_in_parts(model):
    """Positions count on from where the part before ended, whatever axes they have."""
    whole = model.append_text(model.functional_context(1), IDS[:1])
    parts = model.functional_context(1)
    for token in model.text_block(IDS[0]):
        parts = model.append_tokens(parts, token.view(1, 1))
    assert torch.equal(whole.position_R, parts.position_R)
    torch.testing.assert_close(whole.keys_values[-1][0], parts.keys_values[-1][0], atol=1e-5, rtol=1e-5)


def test_packing_counts_as_contexts_do(model):
    """The keys of what follows a picture depend on where it stands; a picture that is left out keeps its place."""
    context, blocks = blocks_of(model)
    context = model.append_text(context, IDS[:1])
    packed = pack(model, [[*blocks, TextBlock(ids_T=IDS[0])]])
    last = slice(-model.text_room(3), None)
    keys = model(packed.query, []).keys_values[-1][0]
    count = packed.query.ids_RT.shape[1]
    torch.testing.assert_close(
        keys[:, :, :count][:, :, last], context.keys_values[-1][0][:, :, last], atol=1e-5, rtol=1e-5
    )
    dropped = pack(model, [[blocks[0], *map(DroppedPicture, blocks[1:]), TextBlock(ids_T=IDS[0])]])
    assert torch.equal(dropped.query.position_RT[:, last], packed.query.position_RT[:, last])


def test_the_backbones_count_differently():
    bagel, dense = (model.append_latents for model in (tiny_bagel(), dense_model()))
    assert bagel(tiny_bagel().functional_context(1), torch.zeros(1, 4, 16), (2, 2)).position_R.tolist() == [1]
    assert dense(dense_model().functional_context(1), torch.zeros(1, 4, 16), (2, 2)).position_R.tolist() == [[2, 2, 2]]


class Other(UnifiedModel):
    """Not a transformer with a cache."""


def test_packed_examples_need_a_cached_transformer():
    Other.__abstractmethods__ = frozenset()
    with pytest.raises(ValueError, match="Other reads no packed examples"):
        pack(Other(), [[TextBlock(ids_T=IDS[0])]])


def test_the_upper_level_knows_no_cache():
    """What tasks, inference and judges may call: nothing of keys and values, delimiters or positions."""
    below = {"forward", "cache_shape", "special", "latent_index", "picture_patches", "append_tokens", "text_places"}
    assert not below & set(vars(UnifiedModel)) and below - {"special"} <= set(vars(CachedTransformer))
