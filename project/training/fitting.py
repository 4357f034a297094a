"""Whether the parts of a run fit together: task, sampler, objective, advantages, update."""

from __future__ import annotations

from collections.abc import Sequence

from project.objectives.base import Objective
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.tasks.base import Task
from project.training.settings import AdvantageSettings, UpdateSettings


def check_fit(
    task: Task,
    sampler: Sampler,
    objective: Objective,
    num_generations: int,
    advantages: AdvantageSettings,
    update: UpdateSettings,
) -> None:
    """Raises ValueError if the parts cannot be trained together."""
    check_task(task, num_generations, advantages)
    check_objective(objective, sampler, [turn.canvas.guidance for turn in task.turns])
    equal = not sampler.trains and any(turn.canvas.shared_noise for turn in task.turns)
    if equal and objective.needs.states and advantages.image_baseline == "context":
        raise ValueError(
            "pictures that follow the ODE from one text and one noise are all the same, so that "
            "advantages.image_baseline=context makes every image advantage 0: set "
            "model.init_args.task.init_args.shared_noise to false, or image_baseline to group"
        )
    check_parts(update, task, objective)
    if update.rollout_average is not None and not objective.needs.old_velocity:
        raise ValueError(
            f"update.rollout_average, but {objective.label} compares no velocity with that of the rollout, so its "
            "ratios would be of two policies: set update.rollout_average to null, or choose an image part such as "
            "project.objectives.NFTImage"
        )


def check_task(task: Task, num_generations: int, advantages: AdvantageSettings) -> None:
    """Raises ValueError if the samples of a prompt could not be compared with each other."""
    if num_generations < 2:
        raise ValueError(
            f"num_generations={num_generations}: an advantage compares samples of one prompt, "
            "set model.init_args.num_generations to 2 or more"
        )
    task.check_group(num_generations)
    if any(turn.think and turn.temperature == 0 for turn in task.turns):
        raise ValueError(
            "temperature=0 is for evaluation: greedy reasoning is the same in every sample, set "
            "model.init_args.task.init_args.temperature above 0 (evaluation.task may have 0)"
        )
    if advantages.baseline == "greedy":
        task.greedy()
    if advantages.combine == "normalised" and type(task).credit is not Task.credit:
        raise ValueError(
            f"advantages.combine=normalised compares rewards within a group, and {type(task).__name__} compares "
            "those of one round with another's: set model.init_args.advantages.combine to sum"
        )


def check_objective(objective: Objective, sampler: Sampler, guidances: Sequence[Guidance]) -> None:
    """Raises ValueError if the objective needs random steps that the sampler does not take, or none where it takes
    some, or a rollout without guidance where there is some.

    Args:
        guidances: of the turns that are trained. Rollout and replay of a turn have the same one by construction.
    """
    needs = objective.needs
    if needs.transitions and not sampler.trains:
        raise ValueError(
            f"{objective.label} trains random steps, and the sampler has no stochastic transition, so it draws nothing "
            "that could be trained: set model.init_args.sampler.transition to project.samplers.FlowSDE with a positive "
            "noise_level"
        )
    if not needs.transitions and sampler.trains:
        raise ValueError(
            f"{objective.label} uses no log-probabilities of denoising steps, but the sampler takes random steps, "
            "which every update would replay for nothing: set model.init_args.sampler.transition to null, so that "
            "pictures follow the ODE, or choose an image part that trains steps, e.g. project.objectives.GRPOImage"
        )
    if needs.unguided and (guided := [guidance for guidance in guidances if guidance.text > 1]):
        raise ValueError(
            f"{objective.label} trains the velocity without guidance, but the task draws with guidance.text="
            f"{guided[0].text}: what is trained must be what draws, so set guided to true in the objective, or "
            "model.init_args.task.init_args.guidance.text to 1.0 (evaluation.task has its own guidance)"
        )


def check_parts(settings: UpdateSettings, task: Task, objective: Objective) -> None:
    """Raises ValueError if samples are to be cut over their trained steps, and the task or objective cannot do it."""
    if settings.steps_per_backward is None:
        return
    wanted = f"update.steps_per_backward={settings.steps_per_backward}"
    if not task.replays_parts:
        raise ValueError(
            f"{wanted}, but {type(task).__name__} replays whole samples only: set it to null, or write its replay_parts"
        )
    if objective.needs.whole_samples:
        raise ValueError(
            f"{wanted}, but {type(objective).__name__} needs whole samples: set it to null, or let the objective's "
            "needs have whole_samples=False if its loss is a sum over texts and trained steps"
        )


def check_dealt(prompts: int, num_generations: int, ranks: int) -> None:
    """Raises ValueError if an update has fewer samples than there are ranks."""
    if prompts * num_generations < ranks:
        raise ValueError(
            f"an update has {prompts} x {num_generations} samples, which cannot be dealt to {ranks} ranks: raise "
            "data.init_args.prompts_per_update, or take fewer devices"
        )
