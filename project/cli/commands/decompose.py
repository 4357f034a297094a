"""Write the yes/no questions of prompts, for DVReward.

After an interruption, give the same command again to go on. With `--output train.jsonl`, the prompts that cannot be
decomposed are in `train.invalid.jsonl`, with the reason. Correct them and use this file as the next input. The figures
are in `train.summary.json`.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.decomposition.base import Decomposer
    from project.decomposition.progress import Outcome
    from project.trajectory import Prompt

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project decompose`."""
    from project.decomposition.base import Decomposer

    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_argument(
        "--input", required=True, help="text file, one prompt per line, or JSONL with `prompt` in each row"
    )
    parser.add_argument("--output", required=True, help="new JSONL file: the rows with questions, in the input's order")
    parser.add_argument(
        "--decomposer",
        type=Decomposer,
        required=True,
        help="class path of the decomposer, e.g. project.decomposition.LLMDecomposer",
    )
    parser.add_argument("--concurrency", type=int, default=32, help="prompts that are decomposed at the same time")


def run(args: Any) -> int:
    """Writes the files, and the summary to stdout; 1 if prompts are left open or none could be decomposed.

    Raises ValueError or FileNotFoundError for an unusable input, an output that exists, and a decomposer that cannot
    work.
    """
    from contextlib import closing

    from tqdm import tqdm

    from project.core.class_paths import instantiate
    from project.data.prompts import read_prompts
    from project.decomposition.base import Decomposer
    from project.decomposition.progress import Journal, decompose_all

    if args.concurrency < 1:
        raise ValueError(f"--concurrency {args.concurrency}: give at least 1")
    output = Path(args.output)
    journal_file = output.with_name(f"{output.name}.partial")
    if output.suffix != ".jsonl":
        raise ValueError(f"--output {output}: give a name that ends with .jsonl")
    if output.exists() and not journal_file.exists():
        raise ValueError(f"--output {output} exists: give another name, or remove it to decompose again")
    prompts = read_prompts(args.input)
    decomposer = instantiate(Decomposer, args.decomposer)  # type: ignore[type-abstract]
    journal = Journal(journal_file, decomposer.name)
    left = [prompt for prompt in prompts if journal.settled(prompt) is None]
    failed: list[Outcome] = []
    if left:
        decomposer.preflight()
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        bar = tqdm(total=len(prompts), initial=len(prompts) - len(left), unit="prompt", desc="decompose", leave=False)
        try:
            with closing(decompose_all(left, decomposer, args.concurrency)) as found:
                for outcome in found:
                    if outcome.open:
                        failed.append(outcome)
                    else:
                        journal.add(outcome)
                        bar.update()
        except KeyboardInterrupt:
            log.warning("stopped with %d of %d prompts done: the same command goes on", bar.n, len(prompts))
            return 128 + signal.SIGINT
        finally:
            bar.close()
            signal.signal(signal.SIGTERM, before)
    outcomes = [journal.settled(prompt) for prompt in prompts]
    if failed:
        places = {prompt.id: prompt.place for prompt in prompts}
        log.error(
            "%d of %d prompts could not be asked about (the first: %s: %s): give the same command again to go on",
            sum(outcome is None for outcome in outcomes),
            len(prompts),
            places[failed[0].id],
            failed[0].reason,
        )
        return 1
    return _write(output, prompts, [outcome for outcome in outcomes if outcome is not None], decomposer, journal_file)


def _write(
    output: Path, prompts: Sequence[Prompt], outcomes: Sequence[Outcome], decomposer: Decomposer, journal: Path
) -> int:
    """Everything that is settled, in the input's order; the output last, as it says that all is done."""
    from dataclasses import replace

    from project.core.atomic_files import write_atomically
    from project.data.prompts import prompt_row
    from project.decomposition.progress import summary

    rows, refused = [], []
    for index, (prompt, outcome) in enumerate(zip(prompts, outcomes, strict=True)):
        columns = {"original_index": index, **prompt.columns}
        row = prompt_row(replace(prompt, questions=outcome.questions, columns=columns), output.parent)
        if outcome.reason:
            without = {key: value for key, value in row.items() if not key.endswith("_questions")}
            refused.append({**without, "place": prompt.place, "reason": outcome.reason})
        else:
            rows.append(row)
    figures = summary(outcomes, decomposer.name)
    invalid = output.with_suffix(".invalid.jsonl")
    if refused:
        write_atomically(invalid, _lines(refused))
        log.warning(
            "%d of %d prompts were left out, see %s (the first: %s: %s)",
            len(refused),
            len(prompts),
            invalid,
            refused[0]["place"],
            refused[0]["reason"],
        )
    else:
        invalid.unlink(missing_ok=True)
    write_atomically(output.with_suffix(".summary.json"), json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.write(table(figures))
    if not rows:
        log.error("no prompt could be decomposed: correct the prompts, or take another decomposer; remove %s", journal)
        return 1
    write_atomically(output, _lines(rows))
    journal.unlink()
    log.info("wrote %s", output)
    return 0


def table(figures: Mapping[str, Any]) -> str:
    """The summary, for reading."""
    lines = [f"{figures['written']} of {figures['prompts']} prompts decomposed by {figures['decomposer']}"]
    for kind, spread in figures["questions_per_prompt"].items():
        if spread:
            lines.append(
                f"{kind} questions per prompt: {spread['mean']:.1f} ({spread['least']} to {spread['most']}); "
                + ", ".join(f"{tag} {number}" for tag, number in figures["tags"][kind].items())
            )
    lines.append(f"questions that depend on others: {figures['with_dependencies']:.0%}")
    return "\n".join(lines) + "\n"


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
