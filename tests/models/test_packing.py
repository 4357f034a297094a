"""Packed examples: the same numbers as contexts give, and as upstream's training forward gives."""

from __future__ import annotations

import pytest
import torch

from project.guidance import Guidance
from project.models.bagel import Bagel
from project.models.context import Contexts
from project.models.packing import LatentBlock, PictureBlock, TextBlock, pack, packed_loss
from project.models.transforms import patchify


@pytest.fixture
def model(bagel_fixture):
    return Bagel.from_pretrained(str(bagel_fixture.directory))


@torch.no_grad()
def test_packing_equals_contexts(model):
    """Two noised copies of one picture, each seeing the texts before and never one another."""
    ids, answer = torch.arange(5, 11), torch.arange(20, 24)
    grid = (2, 3)
    latents, noises = torch.randn(6, model.latent_size), torch.randn(2, 6, model.latent_size)
    sigmas = (0.3, 0.8)
    blocks = [TextBlock(ids_T=ids), TextBlock(ids_T=answer, loss=True)]
    blocks += [
        LatentBlock(latents_LD=latents, grid=grid, sigma=s, noise_LD=n) for s, n in zip(sigmas, noises, strict=True)
    ]
    packed = pack(model, [blocks, [TextBlock(ids_T=ids)]])
    output = model(packed.query, [])

    context = model.append_text(model.functional_context(1), [ids])
    end = torch.tensor([model.special.text_end])
    context, text = model.text_log_probs(context, [torch.cat([answer, end])])
    log_probs = torch.log_softmax(output.logits, -1).gather(1, packed.target_W[:, None])[:, 0]
    torch.testing.assert_close(log_probs, text.log_prob_RT[0], atol=1e-5, rtol=1e-5)

    states = torch.stack([(1 - s) * latents + s * n for s, n in zip(sigmas, noises, strict=True)])
    contexts = Contexts(main=context, text_free=context)
    v = model.velocity(states[None], torch.tensor(sigmas), contexts, Guidance(text=1), grid)
    torch.testing.assert_close(output.velocity_RLD[0].unflatten(0, (2, 6)), v[0], atol=1e-5, rtol=1e-5)
    assert packed.noised_RL.tolist() == [[True] * 12, [False] * 12]


def upstream_samples(model, fixture):
    """The blocks of the fixture's training batch."""
    tensor, case = fixture.tensor, fixture.cases["packing"]
    shapes = case["outputs"]["patchified_vae_latent_shapes"]
    padded, noise, raw = (tensor(n) for n in ("train.in.padded_latent", "train.in.noise", "pack.out.packed_timesteps"))
    patch = model.config.latent_patch_size
    pictures = iter(enumerate(shapes))
    start = 0
    samples = []
    for sample in case["samples"]:
        texts, images = iter(sample["text_ids"]), iter(sample["image_tensors"])
        blocks = []
        for step in sample["sequence_plan"]:
            if step["type"] == "text":
                blocks.append(TextBlock(ids_T=torch.tensor(next(texts)), loss=bool(step["loss"])))
            elif step["type"] == "vit_image":
                blocks.append(PictureBlock(pixels_CHW=tensor(next(images))))
            else:
                next(images)
                number, (height, width) = next(pictures)
                latents = patchify(padded[number, :, : height * patch, : width * patch], patch)
                count = height * width
                sigma = torch.sigmoid(raw[start : start + count].float())[0].item()
                noised = {"sigma": sigma, "noise_LD": noise[start : start + count]} if step["loss"] else {}
                blocks.append(LatentBlock(latents_LD=latents, grid=(height, width), **noised))
                start += count
        samples.append(blocks)
    return samples


@pytest.mark.parametrize("case", ["train_forward", "train_forward_freeze_und"])
def test_training_losses_and_gradients_equal_upstream(model, bagel_fixture, record_error, case):
    expected = bagel_fixture.cases[case]["outputs"]
    model.freeze_und = case.endswith("freeze_und")
    packed = pack(model, upstream_samples(model, bagel_fixture))
    loss = packed_loss(model, packed)
    assert loss.cross_entropy.item() == pytest.approx(expected["ce"], rel=2e-4)
    assert loss.flow_matching.item() == pytest.approx(expected["mse"], rel=2e-4)
    (loss.cross_entropy + loss.flow_matching).backward()
    parameters = dict(model.named_parameters())
    for name, norm in expected["grad_norms"].items():
        gradient = parameters[name].grad
        ours, tolerance = 0.0 if gradient is None else gradient.norm().item(), max(2e-4, 1e-3 * (norm or 0.0))
        record_error(case, abs(ours - (norm or 0.0)), tolerance)
        assert ours == pytest.approx(norm or 0.0, abs=tolerance), name
