from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from project.objectives.base import Counts, LossInputs
from project.objectives.grpo import GRPO
from project.objectives.terms import clipped, clipped_loss, gaussian_kl, k3, sequence_mean
from project.trajectory import Advantages, Group, Prompt, Replay, SampleKey, TextSegment, Trajectory

B, T, K, L, D = 5, 6, 3, 4, 2


def tensors(seed=0, dtype=torch.float64, spread=0.3):
    """Log-probabilities of B samples, one text and one image each; text r has r + 2 tokens (the last row has T)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype) * spread

    mask_BT = torch.arange(T)[None] < torch.tensor([2, 3, 4, 5, 6])[:, None]
    old_text, old_image, mean = normal(B, T) - 2, normal(B, K) - 0.5, normal(B, K, L, D)
    replay = Replay(
        text_log_prob_RT=old_text + normal(B, T),
        old_text_log_prob_RT=old_text,
        entropy_RT=normal(B, T).abs() * 3,
        token_mask_RT=mask_BT,
        text_sample_R=torch.arange(B),
        image_log_prob_RK=old_image + normal(B, K),
        old_image_log_prob_RK=old_image,
        step_mask_RK=torch.ones(B, K, dtype=torch.bool),
        image_sample_R=torch.arange(B),
        mean_RKLD=mean,
        std_RK=normal(B, K).abs() + 0.5,
        dt_RK=-(normal(B, K).abs() + 0.01),
    )
    other = dataclasses.replace(replay, text_log_prob_RT=old_text + normal(B, T), mean_RKLD=mean + normal(B, K, L, D))
    return dataclasses.replace(replay, reference=other)


COUNTS = Counts(samples=B, steps=B * K, tokens=2 + 3 + 4 + 5 + 6, sequences=B)
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.7], dtype=torch.float64)


def inputs(replay, counts=COUNTS, image=ADVANTAGE, text=None):
    return LossInputs(
        replay=replay, image_advantage_B=image, text_advantage_B=-image if text is None else text, counts=counts
    )


def share(replay, rows):
    """The micro-batch of some samples."""
    changes = {
        name: value[rows]
        for name in replay.__slots__
        if isinstance(value := getattr(replay, name), torch.Tensor) and name not in ("text_sample_R", "image_sample_R")
    }
    if replay.reference is not None:
        changes["reference"] = share(replay.reference, rows)
    numbers = torch.arange(len(rows))
    return dataclasses.replace(replay, **changes, text_sample_R=numbers, image_sample_R=numbers)


# ----------------------------------------------------------------- pure functions


def test_clipped_loss_by_hand_on_both_sides():
    log_ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]).log()
    advantage = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    # clip to [0.8, 1.28]; max(-A r, -A clip(r)):
    expected = torch.tensor([-1.0, -2.0, -2.56, 1.6, 2.0, 3.0])
    torch.testing.assert_close(clipped_loss(log_ratio, advantage, 0.2, 0.28), expected)
    assert clipped(log_ratio, advantage, 0.2, 0.28).tolist() == [False, False, True, True, False, False]


def test_gradient_is_cut_exactly_where_clipped_says():
    log_ratio = torch.linspace(-0.6, 0.6, 41).requires_grad_()
    for advantage in (torch.tensor(1.5), torch.tensor(-1.5)):
        (gradient,) = torch.autograd.grad(clipped_loss(log_ratio, advantage, 0.2, 0.28).sum(), log_ratio)
        cut = clipped(log_ratio.detach(), advantage, 0.2, 0.28)
        assert torch.equal(gradient == 0, cut) and cut.any()
        torch.testing.assert_close(gradient[~cut], (-advantage * log_ratio.detach().exp())[~cut])


def test_on_policy_gradient_is_the_policy_gradient():
    log_ratio = torch.zeros(3, requires_grad=True)
    advantage = torch.tensor([1.0, -2.0, 0.5])
    clipped_loss(log_ratio, advantage, 1e-5, 1e-5).sum().backward()
    torch.testing.assert_close(log_ratio.grad, -advantage)


def test_gaussian_kl_is_the_mean_over_dimensions_of_torchs():
    means, std = torch.randn(2, 3, L, D), torch.tensor([0.3, 1.0, 2.5])
    exact = kl_divergence(Normal(means[0], std[:, None, None]), Normal(means[1], std[:, None, None]))
    torch.testing.assert_close(gaussian_kl(means[0] - means[1], std), exact.mean((1, 2)))


def test_k3_is_unbiased_and_never_negative():
    policy, reference = Normal(0.0, 1.0), Normal(0.4, 1.2)
    sample = policy.sample((400_000,))
    estimate = k3(reference.log_prob(sample) - policy.log_prob(sample))
    assert estimate.min() >= -1e-6
    assert estimate.mean().item() == pytest.approx(kl_divergence(policy, reference).item(), rel=0.02)
    # r = log 2: 2 - 1 - log 2
    assert k3(torch.tensor(2.0).log()).item() == pytest.approx(1 - math.log(2))


def test_sequence_mean_by_hand():
    value = torch.tensor([[1.0, 3.0, 8.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert sequence_mean(value, mask).tolist() == [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]


# ----------------------------------------------------------------- the loss by hand


def by_hand(replay, level, reduction, low=0.2, high=0.28):
    """Text loss with loops."""
    losses = []
    for row in range(B):
        length = int(replay.token_mask_RT[row].sum())
        difference = (replay.text_log_prob_RT - replay.old_text_log_prob_RT)[row, :length].tolist()
        if level == "sequence":
            difference = [sum(difference) / length] * length
        a = -ADVANTAGE[row].item()
        ratios = [math.exp(d) for d in difference]
        losses.append([max(-a * r, -a * min(max(r, 1 - low), 1 + high)) for r in ratios])
    if reduction == "tokens":
        return sum(map(sum, losses)) / sum(map(len, losses))
    return sum(sum(row) / len(row) for row in losses) / len(losses)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_text_loss_by_hand(level, reduction):
    replay = tensors()
    objective = GRPO(importance_sampling_level=level, text_reduction=reduction, text_weight=0.5)
    outputs = objective(inputs(replay, image=ADVANTAGE * 0, text=-ADVANTAGE))
    expected = by_hand(replay, level, reduction)
    assert outputs.loss.item() == pytest.approx(0.5 * expected, rel=1e-6)
    assert outputs.metrics["loss/text"].value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_groups_text_weight_comes_on_top_of_the_objectives(weight):
    given = inputs(tensors())
    image = GRPO(text_weight=0.0, kl_text=0.2)(given).loss.item()
    text = GRPO(text_weight=1.0, kl_text=0.2)(given).loss.item() - image
    weighted = GRPO(text_weight=0.3, kl_text=0.2)(dataclasses.replace(given, text_weight=weight)).loss.item()
    assert abs(text) > 0.01 and weighted == pytest.approx(image + 0.3 * weight * text)


def test_image_loss_by_hand():
    replay = tensors(spread=0.02)
    ratio = (replay.image_log_prob_RK - replay.old_image_log_prob_RK).exp()
    a = ADVANTAGE[:, None]
    expected = torch.maximum(-a * ratio, -a * ratio.clamp(0.99, 1.01)).mean().item()
    outputs = GRPO(clip_image=0.01)(inputs(replay, text=ADVANTAGE * 0))
    assert outputs.loss.item() == pytest.approx(expected)
    assert outputs.metrics["loss/image"].value.item() == pytest.approx(expected, rel=1e-5)
    cut = ((a > 0) & (ratio > 1.01)) | ((a < 0) & (ratio < 0.99))
    assert 0 < outputs.metrics["clip_fraction/image"].value.item() < 1
    assert outputs.metrics["clip_fraction/image"].value.item() == pytest.approx(cut.double().mean().item())
    assert outputs.metrics["ratio/image"].value.item() == pytest.approx(ratio.mean().item(), rel=1e-6)
    assert outputs.maxima["ratio_error/image"].item() == pytest.approx((ratio - 1).abs().max().item())


def test_on_policy_nothing_is_clipped_and_the_ratio_is_one():
    replay = tensors()
    same = dataclasses.replace(
        replay, text_log_prob_RT=replay.old_text_log_prob_RT, image_log_prob_RK=replay.old_image_log_prob_RK
    )
    outputs = GRPO()(inputs(same))
    assert set(outputs.maxima) == {"ratio_error/image", "ratio_error/text"}
    assert all(error == 0 for error in outputs.maxima.values())
    for kind in ("text", "image"):
        assert outputs.metrics[f"ratio/{kind}"].value == 1
        assert outputs.metrics[f"clip_fraction/{kind}"].value == 0
    assert all(error > 0.1 for error in GRPO()(inputs(replay)).maxima.values())


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_at_ratio_one_both_levels_have_the_gradient_of_the_mean_over_tokens(level):
    replay = tensors()
    text = replay.old_text_log_prob_RT.clone().requires_grad_()
    outputs = GRPO(importance_sampling_level=level)(inputs(dataclasses.replace(replay, text_log_prob_RT=text)))
    outputs.loss.backward()
    torch.testing.assert_close(text.grad, ADVANTAGE[:, None] * replay.token_mask_RT / COUNTS.tokens)


# ----------------------------------------------------------------- the first optimizer step on a rollout


def noisy(**settings):
    """(outputs, gradients of the image's and the text's log-probabilities) with noise of many clip widths."""
    first = settings.pop("first", True)
    replay = tensors(spread=0.9)
    image, text = (x.clone().requires_grad_() for x in (replay.image_log_prob_RK, replay.text_log_prob_RT))
    given = inputs(dataclasses.replace(replay, image_log_prob_RK=image, text_log_prob_RT=text))
    outputs = GRPO(**settings)(dataclasses.replace(given, first=first))
    outputs.loss.backward()
    return outputs, image.grad, text.grad


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_a_first_ratio_of_one_gives_the_policy_gradient_of_every_term(level, reduction):
    settings = dict(importance_sampling_level=level, text_reduction=reduction)
    outputs, image, text = noisy(first_step_ratio="one", **settings)
    torch.testing.assert_close(image, (-ADVANTAGE[:, None] / (B * K)).expand(B, K))
    mask = tensors().token_mask_RT
    weight = mask / COUNTS.tokens if reduction == "tokens" else mask / mask.sum(1, keepdim=True) / B
    torch.testing.assert_close(text, ADVANTAGE[:, None] * weight)
    for kind, expected in (("image", -ADVANTAGE.mean()), ("text", (ADVANTAGE[:, None] * weight).sum())):
        assert outputs.metrics[f"loss/{kind}"].value.item() == pytest.approx(expected.item(), rel=1e-5), "A times 1"
    _, dropped, dropped_text = noisy(first_step_ratio="measured", **settings)
    assert (dropped == 0).any() and (dropped_text[mask] == 0).any(), "proves nothing: no term is clipped"


def test_what_is_logged_is_the_measured_ratio_in_any_case():
    measured, one = (noisy(first_step_ratio=name)[0] for name in ("measured", "one"))
    for name in measured.metrics.keys() - {"loss/image", "loss/text"}:
        assert torch.equal(measured.metrics[name].value, one.metrics[name].value), name
    assert measured.maxima == one.maxima and one.maxima["ratio_error/image"] > 0.1
    _, gradient, _ = noisy(first_step_ratio="measured")
    assert one.metrics["clip_fraction/image"].value.item() == pytest.approx((gradient == 0).double().mean().item())


def test_later_steps_use_the_measured_ratio():
    measured, one = (noisy(first_step_ratio=name, first=False) for name in ("measured", "one"))
    assert torch.equal(measured[0].loss, one[0].loss)
    assert all(torch.equal(*pair) for pair in zip(measured[1:], one[1:], strict=True))


# ----------------------------------------------------------------- KL


@pytest.mark.parametrize(("form", "factor"), [("exact", 1.0), ("published", None)])
def test_image_kl_against_torch(form, factor):
    replay = tensors()
    std = replay.std_RK[..., None, None]
    exact = kl_divergence(Normal(replay.mean_RKLD, std), Normal(replay.reference.mean_RKLD, std)).mean((2, 3))
    # published: the std before sqrt(-dt) in the denominator
    expected = (exact if factor else exact * -replay.dt_RK).mean().item()
    zero = ADVANTAGE * 0
    outputs = GRPO(kl_image=0.02, kl_image_form=form)(inputs(replay, image=zero, text=zero))
    assert outputs.loss.item() == pytest.approx(0.02 * expected)
    assert outputs.metrics["kl/image"].value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_text_kl_by_hand(reduction):
    replay, zero = tensors(), ADVANTAGE * 0
    r = replay.reference.text_log_prob_RT - replay.text_log_prob_RT
    estimate = (r.exp() - 1 - r) * replay.token_mask_RT
    if reduction == "tokens":
        expected = estimate.sum() / COUNTS.tokens
    else:
        expected = (estimate.sum(1) / replay.token_mask_RT.sum(1)).mean()
    outputs = GRPO(kl_text=0.1, text_reduction=reduction)(inputs(replay, image=zero, text=zero))
    assert outputs.loss.item() == pytest.approx(0.1 * expected.item())
    assert outputs.metrics["kl/text"].value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_reference_is_needed_for_kl_only():
    replay = dataclasses.replace(tensors(), reference=None)
    assert not GRPO().needs.reference
    GRPO()(inputs(replay))
    for settings, message in (({"kl_image": 0.1}, "StepKL needs"), ({"kl_text": 0.1}, "TokenKL needs")):
        objective = GRPO(**settings)
        assert objective.needs.reference
        with pytest.raises(ValueError, match=message):
            objective(inputs(replay))


# ----------------------------------------------------------------- reductions


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
@pytest.mark.parametrize("split", [[[0, 1, 2, 3], [4]], [[0], [1], [2], [3], [4]], [[3, 1], [4, 0, 2]]])
def test_loss_and_gradient_are_the_same_for_any_micro_batches(level, reduction, split):
    objective = GRPO(
        clip_image=0.1,
        importance_sampling_level=level,
        text_reduction=reduction,
        text_weight=0.3,
        kl_image=0.02,
        kl_text=0.05,
        top_entropy_quantile=0.6,
    )
    counts = dataclasses.replace(COUNTS, entropy_threshold=0.4)
    leaves = ("text_log_prob_RT", "image_log_prob_RK", "mean_RKLD")
    replay = tensors()
    selected = replay.entropy_RT[replay.token_mask_RT] >= 0.4
    assert selected.any() and not selected.all()

    def run(parts):
        with_gradient = {name: getattr(replay, name).clone().requires_grad_() for name in leaves}
        whole = dataclasses.replace(replay, **with_gradient)
        outputs = [objective(inputs(share(whole, rows), counts, ADVANTAGE[rows], -ADVANTAGE[rows])) for rows in parts]
        for output in outputs:
            output.loss.backward()
        totals = {
            name: sum((o.metrics[name] for o in outputs[1:]), outputs[0].metrics[name]) for name in outputs[0].metrics
        }
        maxima = {name: max(o.maxima[name] for o in outputs) for name in outputs[0].maxima}
        loss = sum(output.loss.detach() for output in outputs)
        return loss, [leaf.grad for leaf in with_gradient.values()], totals, maxima

    loss, gradients, totals, maxima = run([[0, 1, 2, 3, 4]])
    other_loss, other_gradients, other_totals, other_maxima = run(split)
    torch.testing.assert_close(other_loss, loss, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other_gradients, gradients, rtol=1e-7, atol=1e-9)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    for name, mean in totals.items():
        assert other_totals[name].value.item() == pytest.approx(mean.value.item(), rel=1e-5), name
    assert other_maxima == maxima


def test_averaging_over_ranks_gives_the_gradient_of_one():
    replay = tensors()
    whole = GRPO()(inputs(replay)).loss
    counts = dataclasses.replace(COUNTS, world_size=2)
    ranks = [
        GRPO()(inputs(share(replay, rows), counts, ADVANTAGE[rows], -ADVANTAGE[rows])).loss
        for rows in ([0, 1], [2, 3, 4])
    ]
    torch.testing.assert_close(sum(ranks) / 2, whole)


def test_padding_may_hold_anything_and_sends_no_gradient():
    replay = tensors()
    clean = GRPO(kl_image=0.1, kl_text=0.1)
    mask_BT, mask_BK = replay.token_mask_RT, torch.tensor([[True, True, False]] * 4 + [[False] * 3])
    replay = dataclasses.replace(replay, step_mask_RK=mask_BK)
    expected = clean(inputs(replay)).loss
    text = replay.text_log_prob_RT.masked_fill(~mask_BT, math.nan).requires_grad_()
    image = replay.image_log_prob_RK.masked_fill(~mask_BK, math.inf).requires_grad_()
    mean = replay.mean_RKLD.masked_fill(~mask_BK[..., None, None], math.nan).requires_grad_()
    dirty = dataclasses.replace(
        replay,
        text_log_prob_RT=text,
        image_log_prob_RK=image,
        mean_RKLD=mean,
        std_RK=replay.std_RK.masked_fill(~mask_BK, 0.0),
        entropy_RT=replay.entropy_RT.masked_fill(~mask_BT, math.nan),
    )
    outputs = clean(inputs(dirty))
    outputs.loss.backward()
    torch.testing.assert_close(outputs.loss.detach(), expected)
    assert text.grad[~mask_BT].eq(0).all() and image.grad[~mask_BK].eq(0).all() and mean.grad[~mask_BK].eq(0).all()
    assert all(mean.value.isfinite() for mean in outputs.metrics.values())


def test_rows_find_their_sample():
    """Two images and two texts of sample 1 carry its advantage."""
    replay = share(tensors(), [0, 1])
    replay = dataclasses.replace(
        replay,
        text_log_prob_RT=replay.old_text_log_prob_RT,
        image_log_prob_RK=replay.old_image_log_prob_RK,
        text_sample_R=torch.tensor([1, 1]),
        image_sample_R=torch.tensor([1, 1]),
    )
    counts = Counts(samples=2, steps=2 * K, tokens=5, sequences=2)
    outputs = GRPO()(inputs(replay, counts, torch.tensor([100.0, 3.0]), torch.tensor([100.0, 7.0])))
    assert outputs.loss.item() == pytest.approx(-3 - 7)


def test_without_text_only_the_image_counts():
    replay = share(tensors(), [0, 1])
    nothing = torch.zeros(0, 0, dtype=torch.float64)
    bare = dataclasses.replace(
        replay,
        text_log_prob_RT=nothing,
        old_text_log_prob_RT=nothing,
        entropy_RT=nothing,
        token_mask_RT=nothing.bool(),
        text_sample_R=torch.zeros(0, dtype=torch.long),
    )
    counts = Counts(samples=2, steps=2 * K, tokens=0, sequences=0)
    outputs = GRPO()(inputs(bare, counts, ADVANTAGE[:2]))
    expected = GRPO(text_weight=0.0)(inputs(replay, counts, ADVANTAGE[:2])).loss
    torch.testing.assert_close(outputs.loss, expected)
    assert outputs.maxima["ratio_error/text"] == 0


# ----------------------------------------------------------------- entropy


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_only_tokens_of_high_entropy_are_pushed(level):
    replay = tensors()
    text = replay.old_text_log_prob_RT.clone().requires_grad_()
    counts = dataclasses.replace(COUNTS, entropy_threshold=0.5)
    outputs = GRPO(importance_sampling_level=level)(
        inputs(dataclasses.replace(replay, text_log_prob_RT=text), counts, image=ADVANTAGE * 0, text=-ADVANTAGE)
    )
    outputs.loss.backward()
    selected = replay.token_mask_RT & (replay.entropy_RT >= 0.5)
    assert 0 < selected.sum() < replay.token_mask_RT.sum()
    torch.testing.assert_close(text.grad, ADVANTAGE[:, None] * selected / COUNTS.tokens)
    entropy = replay.entropy_RT[replay.token_mask_RT].mean().item()
    assert outputs.metrics["entropy"].value.item() == pytest.approx(entropy, rel=1e-5)


def test_a_text_is_divided_by_all_its_tokens_however_few_are_pushed():
    replay = tensors()
    text = replay.old_text_log_prob_RT.clone().requires_grad_()
    counts = dataclasses.replace(COUNTS, entropy_threshold=0.5)
    outputs = GRPO(importance_sampling_level="token", text_reduction="sequences")(
        inputs(dataclasses.replace(replay, text_log_prob_RT=text), counts, image=ADVANTAGE * 0, text=-ADVANTAGE)
    )
    outputs.loss.backward()
    selected = replay.token_mask_RT & (replay.entropy_RT >= 0.5)
    lengths = replay.token_mask_RT.sum(1, keepdim=True)
    torch.testing.assert_close(text.grad, ADVANTAGE[:, None] * selected / lengths / COUNTS.sequences)


def test_the_threshold_is_that_of_the_quantile_over_all_ranks():
    # entropies 1, 2, 3, 4 here: half of the tokens start at 3; with four of 9 nats on another rank at 9
    texts = [
        TextSegment(ids_T=torch.ones(2).long(), log_prob_T=-e, entropy_T=e, finished=True, text="")
        for e in (torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0]))
    ]
    group = Group(
        trajectories=tuple(
            Trajectory(prompt=Prompt(id="", text=""), key=SampleKey(seed=0, update=0, prompt=""), segments=(text,))
            for text in texts
        ),
        size=2,
        advantages=Advantages(image_N=torch.zeros(2), text_N=torch.zeros(2), valid_N=torch.ones(2) > 0),
    )

    def other_rank(local):
        beside = torch.zeros_like(local)
        beside[9 * 4096 if len(local) > 4 else 2] = 4.0  # the histogram of entropies, or the counts
        return local + beside

    half = GRPO(top_entropy_quantile=0.5)
    assert half.count([group]).entropy_threshold == 3.0
    assert half.count([group], reduce=other_rank).entropy_threshold == 9.0
    assert GRPO().count([group]).entropy_threshold == -math.inf


def test_the_gate_is_told_the_narrower_side_of_a_clip():
    widths = GRPO(clip_image=1e-4, clip_text=(0.2, 0.1)).clip_widths
    assert (widths.image, widths.text) == (1e-4, 0.1)
    assert GRPO(clip_text=(0.2, 0.28)).clip_widths.text == 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_image": 0.0}, "clip must be positive"),
        ({"clip_text": (-0.1, 0.2)}, "clip must be positive"),
        ({"kl_image": -1.0}, "none may be negative"),
        ({"top_entropy_quantile": 0.0}, "keeps all tokens"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GRPO(**settings)
