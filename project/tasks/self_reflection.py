"""Self-reflective refinement (SRR): look at an own picture, say what is wrong with it, draw a better one.

    first pictures (several per prompt) -> the worst -> [picture, instruction -> reflection, picture] x rounds

Every round is a group of its own, whose trajectories look at one picture only: that of the round before. Reflection
text and picture of all rounds are trained together (AlphaGRPO, arXiv 2605.12495).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.core.randomness import uniform
from project.core.ranks import ALONE, Ranks
from project.models.base import UnifiedModel
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.tasks.base import ChangeGuidance, Rollout, Task
from project.tasks.credit import CREDITS, rewards_of
from project.tasks.drawing import Canvas, given_picture
from project.tasks.parts import ReplayPart
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.rectification import Floor, LearnedStop, Stops, rectify
from project.tasks.request import Request
from project.tasks.rounds import NOTHING_WRONG, RoundRule, check_wording, instruction
from project.tasks.turn import Turn, text_metrics
from project.trajectory import Group, ImageSegment, Prompt, Replay, SampleKey, Trajectory


class SelfReflection(Task):
    """Refines the model's own pictures, in one or several rounds.

    In training all samples of a prompt refine one picture in the first round: the worst of several, or a random one
    that is bad more often than not. With `train_first` the first pictures are trained too (mixed training).

    Args:
        first: how the first pictures are made.
        rounds: K, rounds of refinement.
        candidates: first pictures of a prompt, from which one is chosen by its reward, at most G; with train_first they
            are all G.
        train_first: train the first pictures as well; all G of a prompt are drawn, with stochastic steps.
        first_sampler: sampler of the first pictures; if None, that of the module.
        pick: which first picture is refined: the `worst`, or a random one with p ~ exp(-reward / pick_temperature)
            (`softmax`).
        pick_temperature: temperature of that softmax.
        max_tokens, temperature, top_p: how the reflection is written, see ReasoningT2I.
        guidance: guidance of the refined pictures. Without the image it reads the texts alone.
        shared_noise: start all samples of a group and round from one initial noise.
        think: write a reflection; without it a round is a picture alone.
        wording: what is said beside a picture that is refined, with "{prompt}" where the prompt is to stand; None = the
            model's own default. An adapter that was trained elsewhere expects its own wording.
        credit: reward of a round: that of its `own` picture, that of the `last` round, or the `improvement` over the
            round before.
        rectification: reward that a picture gets which is no better than the one before, see `rectify`; None = its own.
        text_weight: factor of the text loss, on top of the objective's; if None, 1 / (trained steps of a picture), as
            published.
        right: words that mark a reflection which finds nothing wrong; None = every round is drawn.
        learned_stop: what stopping is worth in training, see below; None = it is worth nothing of its own.
        stop_above: a picture with a higher reward is not refined further; None = rewards stop nothing.
        gate: in evaluation, refine only pictures with a lower reward; None = refine all.
        requests_per_forward: samples that are drawn together; if None, all of an update.

    If a reflection finds nothing wrong, this round is the sample's last. In evaluation the picture stays as it is. In
    training it is drawn again all the same, so that the model is never rewarded for stopping in time.

    With `learned_stop` the picture stays in training too, and the text of that round is trained alone. The picture
    keeps the reward that it had. If this is at least `right_from`, stopping was right: the text gets this reward and
    the bonus. If not, stopping was a false positive, like a redrawing that is no better, and gets what `rectification`
    gives to those.

    Raises:
        ValueError: for numbers out of range, unknown names, a wording without "{prompt}", candidates that would all
            be one picture, or a learned stop where no reflection can say it.
    """

    def __init__(
        self,
        first: ReasoningT2I,
        rounds: int = 1,
        candidates: int = 7,
        train_first: bool = False,
        first_sampler: Sampler | None = None,
        pick: Literal["worst", "softmax"] = "worst",
        pick_temperature: float = 0.1,
        max_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 0.8,
        guidance: Guidance = Guidance(text=4.0, image=2.0, interval=(0.0, 1.0), renorm="text_channel"),
        shared_noise: bool = False,
        think: bool = True,
        wording: str | None = None,
        credit: Literal["own", "last", "improvement"] = "last",
        rectification: Floor | None = "before",
        text_weight: float | None = None,
        right: str | None = NOTHING_WRONG,
        learned_stop: LearnedStop | None = None,
        stop_above: float | None = None,
        gate: float | None = None,
        requests_per_forward: int | None = None,
    ) -> None:
        if rounds < 1 or candidates < 1:
            raise ValueError(f"rounds={rounds}, candidates={candidates}: give at least 1")
        if pick not in ("worst", "softmax") or pick_temperature <= 0:
            raise ValueError(f"pick={pick!r}, pick_temperature={pick_temperature}: choose worst or softmax, above 0")
        if credit not in CREDITS:
            raise ValueError(f"credit={credit!r} is unknown: choose one of {', '.join(CREDITS)}")
        if learned_stop is not None and (right is None or not think):
            raise ValueError(
                f"learned_stop, but think={think} and right={right!r}: a reflection has to say that nothing is wrong, "
                "so set think to true and give `right` its words"
            )
        check_wording(wording)
        canvas = first.turn.canvas
        if candidates > 1 and not train_first and canvas.shared_noise and not first.turn.think:
            raise ValueError(
                f"candidates={candidates}: without thinking and with shared_noise the first pictures of a prompt are "
                "all the same, set first.init_args.shared_noise to false"
            )
        self.first = first
        self.turn = Turn(
            canvas=Canvas(height=canvas.height, width=canvas.width, guidance=guidance, shared_noise=shared_noise),
            think=think,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
        )
        self.wording = wording
        self.rounds = rounds
        self.candidates = candidates
        self.train_first = train_first
        self.first_sampler = first_sampler
        self.pick = pick
        self.pick_temperature = pick_temperature
        self.crediting = credit
        self.rectification: Floor | None = rectification
        self.text_weight = text_weight
        self.rule = RoundRule(right=right)
        self.learned_stop = learned_stop
        self.stop_above = stop_above
        self.gate = gate
        self.requests_per_forward = requests_per_forward

    @property
    def turns(self) -> Sequence[Turn]:
        return (*(self.first.turns if self.train_first else ()), self.turn)

    @property
    def evaluates_with_scores(self) -> bool:
        return self.gate is not None or self.stop_above is not None

    def with_guidance(self, change: ChangeGuidance) -> SelfReflection:
        return self._changed(first=self.first.with_guidance(change), turn=self.turn.with_guidance(change))

    def check_group(self, size: int) -> None:
        """Raises ValueError if more first pictures are to be drawn than there are samples that draw them."""
        if self.candidates > size and not self.train_first:
            raise ValueError(
                f"candidates={self.candidates}, but a prompt has num_generations={size} samples to draw them: set "
                f"model.init_args.task.init_args.candidates to {size} or less, or model.init_args.num_generations to "
                f"{self.candidates} or more"
            )

    # ----------------------------------------------------------------- rollout

    def rollout(self, rollout: Rollout) -> list[Group]:
        """The first pictures if they are trained or evaluated, then one group per round."""
        if not rollout.training and rollout.size > 1:
            raise ValueError("self-reflection is evaluated with one sample a prompt")
        gate = RoundRule(below=None if rollout.training else self.gate)
        first = self._first(rollout)
        sources, before_N = self._chosen(first, rollout, needed=rollout.training or self.gate is not None)
        active = [gate.refines(reward) for reward in before_N.tolist()]
        rounds: list[Group] = []
        for round in range(1, self.rounds + 1):
            group = self._round(rollout, sources, active, round)
            # In training every sample is refined once, so the first round always has something to replay.
            spare = rounds[0].trajectories[:1] if rounds else ()
            rounds.append(dataclasses.replace(group, before_N=before_N, spare=spare))
            sources = [trajectory.image for trajectory in group.trajectories]
            active = [on and not self._finds_nothing(t) for on, t in zip(active, group.trajectories, strict=True)]
            if self.stop_above is not None and round < self.rounds and rollout.score is not None:
                rewards = rollout.score.collect(group).reward_N.tolist()
                active = [on and not reward > self.stop_above for on, reward in zip(active, rewards, strict=True)]
        return rounds if rollout.training and not self.train_first else [first, *rounds]

    def _first(self, rollout: Rollout) -> Group:
        """The pictures to choose from."""
        if self.first_sampler is not None:
            rollout = dataclasses.replace(rollout, sampler=self.first_sampler)
        if not self.train_first:
            few = [key for key in rollout.keys if key.sample < self.candidates]
            rollout = dataclasses.replace(rollout, stochastic=False, keys=few)
        (group,) = self.first.rollout(rollout)
        return group

    def _chosen(self, first: Group, rollout: Rollout, needed: bool) -> tuple[list[ImageSegment], Tensor]:
        """The picture that each sample of this rank refines, and its reward (NaN = unjudged)."""
        scored = bool(rollout.score) and (needed or first.size > 1 or bool(first.pending))
        if not scored and (needed or first.size > 1):
            raise ValueError("the picture to refine is chosen by its reward: name a reward under `rewards:`")
        rewards_N = torch.full((len(first),), math.nan)
        if scored:
            assert rollout.score is not None
            rewards_N = rollout.score.collect(first).reward_N
        (rewards_M,) = rollout.ranks.whole(rewards_N)
        assert rewards_M is not None
        chosen = [
            row * first.size + self._pick(rewards, rollout.keys[row * rollout.size])
            for row, rewards in enumerate(rewards_M.split(first.size))
        ]
        pictures = self._pictures(first, chosen, rollout)
        places = [n // rollout.size for n in rollout.mine]
        return [pictures[chosen[row]] for row in places], rewards_M[[chosen[row] for row in places]]

    def _pictures(self, first: Group, chosen: Sequence[int], rollout: Rollout) -> dict[int, ImageSegment]:
        """The pictures at some places of the first ones, from whichever rank drew them."""
        mine = rollout.ranks.share(len(rollout.prompts) * first.size)
        own = {n: first.trajectories[n - mine.start].image for n in chosen if n in mine}
        if rollout.ranks.size == 1:
            return own
        # Only what will be looked at: the latents of a trained picture are large.
        sent = rollout.ranks.gather({n: image.pixels_HWC.clone() for n, image in own.items()})
        return {n: given_picture(pixels_HWC.numpy()) for part in sent for n, pixels_HWC in part.items()} | own

    def _pick(self, rewards_G: Tensor, key: SampleKey) -> int:
        """Place of the picture to refine; the first one where none has a reward."""
        known = torch.nonzero(~torch.isnan(rewards_G)).flatten()
        if not len(known):
            return 0
        if self.pick == "worst":
            return int(known[rewards_G[known].argmin()])
        share = torch.softmax(-rewards_G[known].double() / self.pick_temperature, 0).cumsum(0)
        return int(known[(share <= uniform([key], "pick", 1).double().item()).sum().clamp_max(len(known) - 1)])

    def _round(self, rollout: Rollout, sources: Sequence[ImageSegment], active: Sequence[bool], round: int) -> Group:
        model, size = rollout.model, rollout.size
        keeps = not rollout.training or self.learned_stop is not None
        prompts = [rollout.prompt(n) for n in rollout.mine]
        keys = [rollout.keys[n] for n in rollout.mine]
        trajectories: list[Trajectory] = []
        pending = []
        share = self.requests_per_forward or max(len(keys), 1)
        for start in range(0, len(keys), share):
            chunk = range(start, min(start + share, len(keys)))
            drawing = [n for n in chunk if active[n]]
            requests = [self._request(model, prompts[n], keys[n], sources[n]) for n in drawing]
            done = self._finds_nothing if keeps else None
            drawn = self.turn.rollout(rollout, requests, round, done) if requests else []
            by_place = dict(zip(drawing, drawn, strict=True))
            part = [by_place[n] if n in by_place else _stopped(prompts[n], keys[n], sources[n], round) for n in chunk]
            trajectories += part
            if rollout.score is not None:
                pending.append(rollout.score(part))
        made = [t for t in trajectories if not t.stopped]
        return Group(
            trajectories=tuple(trajectories),
            size=size,
            task="srr",
            round=round,
            log_prefix=f"srr/{round}/",
            label=f"round{round}",
            text_weight=self._text_weight(rollout),
            pending=tuple(pending),
            metrics={"stopped": Mean.over(t.stopped for t in trajectories), **text_metrics(made)},
        )

    def _request(self, model: UnifiedModel, prompt: Prompt, key: SampleKey, source: ImageSegment | None) -> Request:
        wording = model.defaults.reflect_prompt if self.wording is None else self.wording
        return Request(prompt=prompt, key=key, text=instruction(wording, prompt.text), source=source)

    def _finds_nothing(self, trajectory: Trajectory) -> bool:
        return any(self.rule.finds_nothing(text.text) for text in trajectory.texts)

    def _text_weight(self, rollout: Rollout) -> float:
        if self.text_weight is not None:
            return self.text_weight
        return 1 / rollout.sampler.window_size if rollout.stochastic and rollout.sampler.trains else 1.0

    # ----------------------------------------------------------------- credit

    def credit(self, groups: Sequence[Group], ranks: Ranks = ALONE) -> list[Group]:
        """Replaces the rewards of the rounds by their credit, rectified; first pictures keep theirs."""
        first = [group for group in groups if not group.round]
        rounds = [group for group in groups if group.round]
        rewards = rewards_of(rounds)
        credited = []
        for group, mine, (mine_N, mine_before_N) in zip(rounds, rewards, CREDITS[self.crediting](rewards), strict=True):
            assert group.scores is not None
            reward_N, before_N, seen_N, kept_N = ranks.whole(mine_N, mine_before_N, mine.seen_N, mine.kept_N)
            assert reward_N is not None and before_N is not None and seen_N is not None and kept_N is not None
            rectified = rectify(
                reward_N,
                before_N,
                group.size,
                floor=self.rectification,
                relative=self.crediting == "improvement",
                stops=self._stops(seen_N, kept_N),
            )
            places = ranks.share(len(reward_N))
            scores = dataclasses.replace(group.scores, reward_N=rectified.reward_N[places.start : places.stop])
            credited.append(dataclasses.replace(group, scores=scores, metrics=rectified.metrics))
        return [*first, *credited]

    def _stops(self, seen_N: Tensor, kept_N: Tensor) -> Stops | None:
        if self.learned_stop is None:
            return None
        return Stops(kept_N=kept_N, right_N=seen_N >= self.learned_stop.right_from, bonus=self.learned_stop.bonus)

    # ----------------------------------------------------------------- replay

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        if trajectories[0].round == 0:
            return self.first.replay(
                model, trajectories, self.first_sampler or sampler, context_gradient=context_gradient
            )
        requests = [self._request(model, t.prompt, t.key, t.source) for t in trajectories]
        return self.turn.replay(model, requests, trajectories, sampler, context_gradient=context_gradient)

    def replay_parts(
        self,
        model: UnifiedModel,
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
        steps: int,
    ) -> Iterator[ReplayPart]:
        if trajectories[0].round == 0:
            return self.first.replay_parts(
                model, trajectories, self.first_sampler or sampler, context_gradient=context_gradient, steps=steps
            )
        requests = [self._request(model, t.prompt, t.key, t.source) for t in trajectories]
        return self.turn.replay_parts(
            model, requests, trajectories, sampler, context_gradient=context_gradient, steps=steps
        )


def _stopped(prompt: Prompt, key: SampleKey, source: ImageSegment, round: int) -> Trajectory:
    return Trajectory(prompt=prompt, key=key, segments=(), source=source, round=round)
