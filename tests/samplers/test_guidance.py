from __future__ import annotations

import pytest
import torch
from torch.linalg import vector_norm

from project.samplers.guidance import Guidance, guide
from project.samplers.schedule import sigmas


def velocities(rows=3, length=5, size=4):
    return [torch.randn(rows, length, size) for _ in range(3)]


def test_global_by_hand():
    # v = (3, 4), text-free (0, 0): u = 2 v has norm 10, v has 5, so u is scaled by half, back to v
    v = torch.tensor([[[3.0, 4.0]]])
    torch.testing.assert_close(guide(v, torch.zeros_like(v), None, Guidance(text=2.0)), v)
    # v = (1, 0), text-free (0, 1), scale 3: u = (3, -2), scaled by 1 / sqrt(13)
    v, free = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    expected = torch.tensor([[[3.0, -2.0]]]) / 13**0.5
    torch.testing.assert_close(guide(v, free, None, Guidance(text=3.0)), expected)


def test_a_shorter_guided_velocity_is_not_lengthened():
    # v = 4, text-free 5, scale 2: u = 5 + 2 (4 - 5) = 3, below 4, stays 3
    v, free = torch.full((1, 1, 1), 4.0), torch.full((1, 1, 1), 5.0)
    assert guide(v, free, None, Guidance(text=2.0)).item() == 3.0


def test_renorm_min_bounds_the_correction():
    v = torch.tensor([[[3.0, 4.0]]])
    guided = guide(v, torch.zeros_like(v), None, Guidance(text=4.0, renorm_min=0.5))
    torch.testing.assert_close(guided, 2 * v)


@pytest.mark.parametrize("renorm", ["global", "channel"])
def test_norms_over_image_and_token(renorm):
    v, text_free, image_free = velocities()
    guided = guide(v, text_free, image_free, Guidance(text=4.0, image=2.0, renorm=renorm))
    w = image_free + 2 * (text_free + 4 * (v - text_free) - image_free)
    dims = (1, 2) if renorm == "global" else (2,)
    kept = torch.minimum(vector_norm(v, dim=dims), vector_norm(w, dim=dims))
    torch.testing.assert_close(vector_norm(guided, dim=dims), kept)
    torch.testing.assert_close(torch.cosine_similarity(guided, w, -1), torch.ones(3, 5))


def test_text_channel_renorms_before_the_image():
    v, text_free, image_free = velocities()
    guided = guide(v, text_free, image_free, Guidance(text=4.0, image=2.0, renorm="text_channel"))
    u = guide(v, text_free, None, Guidance(text=4.0, renorm="channel"))
    torch.testing.assert_close(guided, image_free + 2 * (u - image_free))


@pytest.mark.parametrize("renorm", ["global", "channel", "text_channel"])
def test_the_norm_is_per_image_never_over_a_batch(renorm):
    v, text_free, image_free = velocities()
    guidance = Guidance(text=4.0, image=2.0, renorm=renorm)
    together = guide(v, text_free, image_free, guidance)
    for row in range(3):
        alone = guide(v[row : row + 1], text_free[row : row + 1], image_free[row : row + 1], guidance)
        torch.testing.assert_close(alone[0], together[row])


def test_image_guidance_is_off_at_one_and_text_at_one_switches_all_off():
    v, text_free, image_free = velocities()
    assert torch.equal(
        guide(v, text_free, image_free, Guidance(text=4.0, image=1.0)), guide(v, text_free, None, Guidance(text=4.0))
    )
    assert torch.equal(guide(v, text_free, image_free, Guidance(text=1.0, image=2.0)), v)


def test_result_is_fp32():
    v, text_free, _ = velocities()
    guided = guide(v.bfloat16(), text_free.bfloat16(), None, Guidance())
    assert guided.dtype == torch.float32
    assert torch.equal(guided, guide(v.bfloat16().float(), text_free.bfloat16().float(), None, Guidance()))


def test_interval_is_open_below_and_closed_above():
    guidance = Guidance(interval=(0.4, 0.9))
    # 0.4 and 0.9 as a schedule holds them, in fp32
    low, middle, high = torch.tensor([0.4, 0.5, 0.9]).tolist()
    assert [guidance.active(s) for s in (low, middle, high, 0.91)] == [False, True, True, False]
    assert not Guidance(text=1.0).active(0.7)
    assert [Guidance().active(s) for s in sigmas(3, 3.0).tolist()] == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": (1.0, 0.4)}, "lo below hi"),
        ({"renorm": "tokens"}, "choose one of"),
        ({"renorm_min": 2.0}, "give 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**settings)


def test_missing_image_free_velocity_is_refused():
    v, text_free, _ = velocities()
    with pytest.raises(ValueError, match="without the input image"):
        guide(v, text_free, None, Guidance(image=2.0))
