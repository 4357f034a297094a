"""`fit --ckpt_path last`: which run goes on, whether it is finished, and with which other settings."""

from __future__ import annotations

import json
import pydoc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from project.core.config_files import unreadable
from project.core.run_folder import RunFolder, folder_of_checkpoint
from project.training.checkpoints import read_checkpoint

COMPARED = ("seed_everything", "model", "data", "rewards", "benchmarks", "trainer.precision", "trainer.callbacks")
"""Keys of a configuration that decide what is trained and measured, and in which order."""
OF_THE_OPTIMIZER = ("model.init_args.optimizer.init_args.", "model.init_args.trainable.parameter_groups.")
"""Settings that a checkpoint holds too, and that are taken from it."""
MOST = 20
"""Differences that are said."""


class Finished(Exception):
    """There is nothing left to do: the run that would go on has reached its end."""


def last_to_go_on(runs: RunFolder, trainer: Mapping[str, Any], measures: bool) -> tuple[Path | None, str]:
    """The checkpoint that `fit --ckpt_path last` goes on from, None to start afresh, and a line that says so.

    It is that of the newest run that has one. A run that is finished stays as it is; if a later one was started and
    ended before its first checkpoint, that one is what starts afresh.

    Args:
        trainer: options of the trainer: `max_steps` and `max_epochs` are the end of the run.
        measures: whether the run is measured at its end; it is not finished before that.

    Raises:
        Finished: the newest run is.
        ValueError: its checkpoint is damaged.
    """
    try:
        last = runs.last_checkpoint()
    except FileNotFoundError:
        return None, f"--ckpt_path last: no run of {runs.home} has a checkpoint yet: starts afresh"
    later = runs.started_after(last)
    end = reached(last, trainer, measures)
    if end and not later:
        raise Finished(f"finished: {end}, {last}")
    if end:
        return None, f"--ckpt_path last: {last} is finished, {later[-1]} has no checkpoint yet: starts afresh"
    without = f" ({later[-1]} has no checkpoint)" if later else ""
    return last, f"--ckpt_path last: goes on from {last}{without}"


def reached(last: Path, trainer: Mapping[str, Any], measures: bool) -> str:
    """What is said of a run that has reached the end that the trainer is given, "N of N updates"; otherwise ""."""
    saved = read_checkpoint(last, contents=False)
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    done = steps is not None and 0 <= steps <= saved["global_step"]
    if epochs is not None and epochs >= 0:
        done = done or epochs <= _epochs(saved["loops"]["fit_loop"])
    updates = saved["updates"]
    if not done or (measures and _measured(last.parent.parent / "results.json") != updates):
        return ""
    return f"{updates} of {updates} updates"


def differences(checkpoint: Path, now: str) -> list[str]:
    """What differs between the configuration `now` (YAML) and that of the run that a checkpoint lies in, a line each.

    Nothing for a checkpoint outside of a run folder. Raises ValueError for an optimizer of another class or of other
    parameter groups, whose state the checkpoint does not hold, and for a `config.yaml` that cannot be read.
    """
    folder = folder_of_checkpoint(checkpoint)
    if folder is None:
        return []
    file = folder / "config.yaml"
    if problem := unreadable([file]):
        raise ValueError(f"{problem} (it tells what {checkpoint.name} was trained with)")
    saved, given = (_compared(yaml.safe_load(text)) for text in (file.read_text(encoding="utf-8"), now))
    found = dict(_unequal(saved, given, ""))
    key = "model.init_args.optimizer.class_path"
    if key in found:
        was, there = found[key]
        raise ValueError(
            f"{key} is {there}, but {checkpoint} holds the state of {was}: go on with that optimizer, or start afresh"
        )
    trained = [_trainable(config) for config in (saved, given)]
    patterns = [list(trainable.get("parameter_groups") or {}) for trainable in trained]
    # Adapters in the place of weights are refused with better words when the checkpoint is loaded.
    if patterns[0] != patterns[1] and len({trainable.get("lora") is None for trainable in trained}) == 1:
        raise ValueError(
            f"model.init_args.trainable.parameter_groups has {_short(patterns[1])}, but {checkpoint} holds the "
            f"optimizer's state of {_short(patterns[0])}: go on with these groups, or start afresh"
        )
    lines = [
        f"{key}: {_short(there)}, was {_short(was)}"
        + (" (no effect: the checkpoint's is taken)" if key.startswith(OF_THE_OPTIMIZER) else "")
        for key, (was, there) in found.items()
    ]
    return lines[:MOST] + ([f"and {len(lines) - MOST} more"] if len(lines) > MOST else [])


def _epochs(loops: Mapping[str, Any]) -> int:
    """Finished epochs. What is saved after the last update of an epoch counts that epoch as begun only."""
    epochs = loops["epoch_progress"]["current"]
    over = loops["epoch_loop.batch_progress"]["is_last_batch"] and epochs["ready"] > epochs["processed"]
    return int(epochs["processed"] + over)


def _measured(results: Path) -> int | None:
    """The update that a run's last measurement belongs to."""
    if not results.is_file():
        return None
    updates: int | None = json.loads(results.read_text(encoding="utf-8")).get("measured_updates")
    return updates


def _trainable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ((config["model"] or {}).get("init_args") or {}).get("trainable") or {}
    return found


def _compared(config: Any) -> dict[str, Any]:
    found = {}
    for name in COMPARED:
        value = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found[name] = value
    return found


def _unequal(was: Any, there: Any, key: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(dotted key, (value before, value now)) of what is unequal; of another class only the class is named."""
    if was == there:
        return
    both = isinstance(was, Mapping) and isinstance(there, Mapping)
    if both and not _same_class(was.get("class_path"), there.get("class_path")):
        yield f"{key}.class_path", (was.get("class_path"), there.get("class_path"))
    elif both:
        for name in dict.fromkeys([*was, *there]):
            if name == "class_path":
                continue
            yield from _unequal(was.get(name), there.get(name), f"{key}.{name}" if key else name)
    elif isinstance(was, list) and isinstance(there, list) and len(was) == len(there):
        for place, pair in enumerate(zip(was, there, strict=True)):
            yield from _unequal(*pair, f"{key}[{place}]")
    else:
        yield key, (was, there)


def _same_class(one: str | None, other: str | None) -> bool:
    """Whether two class paths name one class, which may have a shorter path beside its own."""
    if one == other or one is None or other is None:
        return one == other
    try:
        return pydoc.locate(one) is pydoc.locate(other)
    except pydoc.ErrorDuringImport:
        return False


def _short(value: Any) -> str:
    """In a line: of a class its name, of anything long its beginning."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"])
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    text = "not set" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
