"""Packed examples: the same numbers as contexts give, and as upstream's training forward gives."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from project.models.bagel import Bagel
from project.models.condition_dropout import ConditionDropout, drop_conditions
from project.models.context import Contexts
from project.models.packing import DroppedPicture, LatentBlock, PictureBlock, TextBlock, pack, packed_loss
from project.models.transforms import patchify
from project.samplers.guidance import Guidance
from project.samplers.schedule import shift_sigma


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
    """The blocks of the fixture's training batch, and whether upstream may drop each of them."""
    tensor, case = fixture.tensor, fixture.cases["packing"]
    shift = fixture.cases["train_forward"]["inputs"]["timestep_shift"]
    shapes = case["outputs"]["patchified_vae_latent_shapes"]
    padded, noise, raw = (tensor(n) for n in ("train.in.padded_latent", "train.in.noise", "pack.out.packed_timesteps"))
    patch = model.config.latent_patch_size
    pictures = iter(enumerate(shapes))
    start = 0
    samples, conditions = [], []
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
                sigma = shift_sigma(torch.sigmoid(raw[start]), shift).item()
                noised = {"sigma": sigma, "noise_LD": noise[start : start + count]} if step["loss"] else {}
                blocks.append(LatentBlock(latents_LD=latents, grid=(height, width), **noised))
                start += count
        samples.append(blocks)
        conditions.append([bool(step["enable_cfg"]) for step in sample["sequence_plan"]])
    return samples, conditions


def upstream_order(model, row):
    """Where our tokens (understanding, then latent) of one sample stand in upstream's sequence, block by block."""
    words = sum(
        len(b.ids_T) + 2 if isinstance(b, TextBlock) else 2 + len(model.picture_patches(b.pixels_CHW)[0])
        for b in row
        if isinstance(b, TextBlock | PictureBlock)
    ) + 2 * sum(isinstance(b, LatentBlock) for b in row)
    order, word, latent = [], 0, words
    for block in row:
        if isinstance(block, DroppedPicture):
            continue
        if isinstance(block, LatentBlock):
            count = len(block.latents_LD)
            order += [word, *range(latent, latent + count), word + 1]
            word, latent = word + 2, latent + count
        else:
            count = 2 + len(block.ids_T if isinstance(block, TextBlock) else model.picture_patches(block.pixels_CHW)[0])
            order += range(word, word + count)
            word += count
    return torch.tensor(order), words


def unpack(model, packed, samples):
    """What a packed batch says of every token, in upstream's order; the samples' masks, and their lengths."""
    query, pictures = packed.query, packed.query.pictures
    width = query.ids_RT.shape[1]
    found = defaultdict(list)
    masks, lengths = [], []
    for r, row in enumerate(samples):
        order, words = upstream_order(model, row)
        latents = len(order) - words
        # The row's real tokens, out of the padded ones of the batch.
        places = torch.cat([torch.arange(words), width + torch.arange(latents)])[order]
        start, is_latent = sum(lengths), order >= words
        for name, und, gen in (
            ("position", query.position_RT[r], query.latent_position_RL[r]),
            ("ids", query.ids_RT[r], torch.full_like(query.latent_position_RL[r], -1)),
            ("marked", query.logits[r], torch.zeros_like(packed.noised_RL[r])),
            ("noised", torch.zeros_like(query.logits[r]), packed.noised_RL[r]),
        ):
            found[name].append(torch.cat([und, gen])[places])
        is_patch = torch.zeros(len(order), dtype=torch.bool)
        for slot, count in zip(
            pictures.slot_I[pictures.row_I == r].tolist(),
            pictures.visible_IM[pictures.row_I == r].sum(1).tolist(),
            strict=True,
        ):
            is_patch |= (order >= slot) & (order < slot + count)
            found["patch_counts"].append(torch.tensor([count]))
        found["patches"].append(start + is_patch.nonzero()[:, 0])
        found["latents"].append(start + is_latent.nonzero()[:, 0])
        found["words"].append(start + (~is_latent & ~is_patch).nonzero()[:, 0])
        found["word_ids"].append(found["ids"][-1][~is_latent & ~is_patch])
        found["sigma"].append(query.sigma_RL[r, :latents])
        found["latent_index"].append(query.latent_index_RL[r, :latents])
        masks.append(query.mask[r][places][:, places])
        lengths.append(len(order))
    return {name: torch.cat(parts) for name, parts in found.items()}, masks, lengths


@pytest.mark.parametrize("case", ["packing", "packing_all_conditions_dropped"])
def test_packed_sequences_equal_upstream(model, bagel_fixture, near, case):
    outputs = bagel_fixture.cases[case]["outputs"]
    expected = {n: bagel_fixture.tensor(t) for n, t in outputs.items() if isinstance(t, str)}
    samples, conditions = upstream_samples(model, bagel_fixture)
    if case != "packing":
        everything, generator = ConditionDropout(text=1, vit=1, vae=1), torch.Generator()
        whole, samples = samples, [drop_conditions(row, everything, generator) for row in samples]
        for before, after, droppable in zip(whole, samples, conditions, strict=True):
            assert kept(before, after) == [place for place, drop in enumerate(droppable) if not drop]
    packed = pack(model, samples, balance_texts=True)
    ours, masks, lengths = unpack(model, packed, samples)
    pictures = packed.query.pictures
    assert lengths == outputs["sample_lens"] and sum(lengths) == outputs["sequence_length"]
    for name, theirs in {
        "position": "packed_position_ids",
        "word_ids": "packed_text_ids",
        "words": "packed_text_indexes",
        "patches": "packed_vit_token_indexes",
        "patch_counts": "vit_token_seqlens",
        "latents": "packed_vae_token_indexes",
        "latent_index": "packed_latent_position_ids",
    }.items():
        assert ours[name].tolist() == expected[theirs].tolist(), name
    assert ours["noised"].nonzero()[:, 0].tolist() == expected["mse_loss_indexes"].tolist()
    assert ours["marked"].nonzero()[:, 0].tolist() == expected["ce_loss_indexes"].tolist()
    assert packed.target_W.tolist() == expected["packed_label_ids"].tolist()
    assert pictures.index_IM[pictures.visible_IM].tolist() == expected["packed_vit_position_ids"].tolist()
    for mask, name in zip(masks, outputs["nested_attention_masks"], strict=True):
        assert torch.equal(mask, bagel_fixture.tensor(name)), name
    grids = [list(b.grid) for row in samples for b in row if isinstance(b, LatentBlock)]
    assert grids == outputs["patchified_vae_latent_shapes"]
    near(pictures.patches_IMD[pictures.visible_IM], expected["packed_vit_tokens"])
    near(packed.weight_W, expected["ce_loss_weights"])
    # Upstream's flow times are not yet squashed and shifted; -inf, a clean picture, becomes 0.
    shift = bagel_fixture.cases["train_forward"]["inputs"]["timestep_shift"]
    near(ours["sigma"], shift_sigma(torch.sigmoid(expected["packed_timesteps"]), shift))
    if "padded_images" in expected:
        near(model.autoencoder.encode(expected["padded_images"]), bagel_fixture.tensor("train.in.padded_latent"))


@pytest.mark.parametrize("case", ["train_forward", "train_forward_freeze_und"])
def test_training_losses_and_gradients_equal_upstream(model, bagel_fixture, near, case):
    expected = bagel_fixture.cases[case]["outputs"]
    model.freeze_und = case.endswith("freeze_und")
    samples, _ = upstream_samples(model, bagel_fixture)
    loss = packed_loss(model, pack(model, samples))
    near(loss.cross_entropy, torch.tensor(expected["ce"]))
    near(loss.flow_matching, torch.tensor(expected["mse"]))
    (loss.cross_entropy + loss.flow_matching).backward()
    parameters = dict(model.named_parameters())
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
    for name, norm in expected["grad_norms"].items():
        near(gradients[name].norm(), torch.tensor(norm or 0.0))
    for name in (n for n in expected if n.startswith("grad:")):
        near(gradients[name.removeprefix("grad:")], bagel_fixture.tensor(expected[name]))
    if "global_grad_norm" in expected:
        near(torch.stack([g.norm() for g in gradients.values()]).norm(), torch.tensor(expected["global_grad_norm"]))


@torch.no_grad()
@pytest.mark.parametrize("case", ["train_forward"])
def test_losses_of_each_token_equal_upstream(model, bagel_fixture, near, case):
    """Also the weighted mean in which a text counts by the root of its length."""
    expected = bagel_fixture.cases[case]["outputs"]
    samples, _ = upstream_samples(model, bagel_fixture)
    packed = pack(model, samples, balance_texts=True)
    output = model(packed.query, [])
    cross_entropy = torch.nn.functional.cross_entropy(output.logits, packed.target_W, reduction="none")
    near(cross_entropy, bagel_fixture.tensor(expected["ce_per_token"]))
    difference = (output.velocity_RLD - packed.velocity_RLD)[packed.noised_RL]
    near(difference.square(), bagel_fixture.tensor(expected["mse_per_token_dim"]))
    near(packed_loss(model, packed).cross_entropy, torch.tensor(expected["ce_reweighted"]))


def test_freeze_und_keeps_the_gradient_of_the_other_parameters(model):
    """The generation expert learns from a drawing, the understanding expert gets nothing, in any of its weights."""
    model.freeze_und = True
    drawn = LatentBlock(
        latents_LD=torch.randn(6, model.latent_size), grid=(2, 3), sigma=0.5, noise_LD=torch.randn(6, model.latent_size)
    )
    packed_loss(model, pack(model, [[TextBlock(ids_T=torch.arange(5, 9), loss=True), drawn]])).flow_matching.backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert got and all("_moe_gen" in n or n.startswith(("llm2vae", "vae2llm", "time_embedder")) for n in got)


def kept(before, after):
    """Places of the blocks that are left."""
    left = {id(block) for block in after}
    return [place for place, block in enumerate(before) if id(block) in left]


def blocks_of_an_edit():
    noise = torch.zeros(1, 16)
    return [
        TextBlock(ids_T=torch.tensor([7])),
        LatentBlock(latents_LD=torch.zeros(1, 16), grid=(1, 1)),
        PictureBlock(pixels_CHW=torch.zeros(3, 14, 14)),
        TextBlock(ids_T=torch.tensor([8])),
        TextBlock(ids_T=torch.tensor([9]), loss=True),
        LatentBlock(latents_LD=torch.zeros(1, 16), grid=(1, 1), sigma=0.5, noise_LD=noise),
        TextBlock(ids_T=torch.tensor([10])),
    ]


def test_only_what_is_drawn_from_is_dropped():
    """Not the system prompt, what is learned, or what follows the drawing."""
    blocks = blocks_of_an_edit()
    some = drop_conditions(blocks, ConditionDropout(text=1, vit=1, vae=1), torch.Generator(), keep=1)
    assert kept(blocks, some) == [0, 4, 5, 6]
    assert [dropped.block for dropped in some[1:3]] == blocks[1:3]
    none = drop_conditions(blocks, ConditionDropout(text=0, vit=0, vae=0), torch.Generator())
    assert kept(blocks, none) == [*range(7)]


def test_conditions_are_dropped_at_their_shares():
    blocks, generator = blocks_of_an_edit(), torch.Generator().manual_seed(0)
    runs = [kept(blocks, drop_conditions(blocks, ConditionDropout(), generator, keep=1)) for _ in range(3000)]
    rates = [sum(place not in run for run in runs) / len(runs) for place in range(7)]
    assert rates == pytest.approx([0, 0.3, 0.3, 0.1, 0, 0, 0], abs=0.03)
    # Each on its own: both pictures go together as often as chance has it.
    assert sum(not {1, 2} & {*run} for run in runs) / len(runs) == pytest.approx(0.09, abs=0.02)


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match=r"vit = 30"):
        ConditionDropout(vit=30)
