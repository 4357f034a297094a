"""One `fit` for each arm and seed: started, resumed, waited for; a finished one is never repeated."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from project.core.atomic_files import write_atomically
from project.core.config_files import merged
from project.core.moved_paths import canonical
from project.core.run_folder import versions
from project.study.plan import Study

POLL_SECONDS = 0.2
LAST_LINES = 8
"""Lines of a failed run's log that the message quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The training of one arm with one seed, in `home` = OUT/ARM-SEED.

    `home/run.json` records what was started there and whether it finished, `home/log.txt` what it said;
    `home/version_N` is the run folder that `fit` makes.
    """

    arm: str
    seed: int
    home: Path
    command: tuple[str, ...]
    """`fit` with its options, without interpreter and checkpoint."""
    settings: Mapping[str, Any]
    """What its configuration files and options say together, without its folder: a run is finished only for the
    settings that it was made with."""

    @property
    def name(self) -> str:
        return self.home.name

    @property
    def log(self) -> Path:
        return self.home / "log.txt"

    def made_with(self, noted: Mapping[str, Any]) -> bool:
        """Whether a run whose `run.json` says `noted` had these settings: the same values, by the same classes."""
        return _comparable(noted.get("settings")) == _comparable(self.settings)

    def versions(self) -> list[Path]:
        """Run folders, newest first."""
        return [*versions(self.home).values()][::-1]

    def results(self) -> Path | None:
        """The newest run folder whose `results.json` tells how it was after training."""
        for folder in self.versions():
            file = folder / "results.json"
            if file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("after") is not None:
                return folder
        return None

    def finished(self) -> Path | None:
        """The folder of the finished run, None if it has to be started or resumed.

        Raises ValueError if `home` holds a run with other settings.
        """
        file = self.home / "run.json"
        if not file.is_file():
            return None
        noted = json.loads(file.read_text(encoding="utf-8"))
        if not self.made_with(noted):
            raise ValueError(
                f"{self.home} holds a run with other settings (see its run.json): give another --out, or delete it"
            )
        return self.results() if noted["finished"] else None

    def checkpoint(self) -> Path | None:
        """Where an interrupted run can go on."""
        files = (folder / "checkpoints" / "last.ckpt" for folder in self.versions())
        return next((file for file in files if file.exists()), None)

    def note(self, *, finished: bool) -> None:
        """Writes `run.json`."""
        noted = {"command": self.command, "settings": self.settings, "finished": finished}
        text = json.dumps(noted, indent=2)
        write_atomically(self.home / "run.json", text + "\n")


def run_name(arm: str, seed: int) -> str:
    """Name of a run and of its folder."""
    return f"{arm}-{seed}"


def runs_of(study: Study, out: Path) -> list[Run]:
    """The runs of a study, seed by seed: after the first seed all arms can be compared."""
    runs = []
    for seed in study.seeds:
        for name, arm in study.arms.items():
            home = out / run_name(name, seed)
            own = {**study.overrides, **arm.overrides, "run.name": home.name, "seed_everything": seed}
            options = [
                f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in own.items()
            ]
            configs = [f"--config={config}" for config in arm.configs]
            settings = merged([Path(config) for config in arm.configs], own)
            settings["run"].pop("root", None)
            command = ("fit", *configs, *options, f"--run.root={out}")
            runs.append(Run(arm=name, seed=seed, home=home, command=command, settings=settings))
    return runs


def check_prompts(study: Study, runs: Sequence[Run]) -> None:
    """Raises ValueError if a measure is taken on arms that will be evaluated on different prompts.

    `outcomes` finds this too, but only after the runs.
    """
    settings = {run.arm: run.settings for run in runs}
    for name, measure in study.measures.items():
        benchmark = measure.benchmark or study.benchmark
        files = {arm: _evaluated_on(settings[arm], benchmark) for arm in study.arms_of(name)}
        known = {arm: file for arm, file in files.items() if file is not None}
        if len(set(known.values())) > 1:
            raise ValueError(
                f"measure {name!r} is taken on arms that are evaluated on different prompts "
                f"({', '.join(f'{arm}: {file}' for arm, file in known.items())}): give them the same "
                "data.init_args.val, or give the measure `arms` that have the same"
            )


def _evaluated_on(settings: Mapping[str, Any], benchmark: str) -> str | None:
    """The prompts that the settings of a run name for a benchmark; None if they name none."""
    data = settings.get("data") or {}
    val = (data.get("init_args") or {}).get("val")
    if isinstance(val, Mapping):
        val = val.get(benchmark)
    return val if isinstance(val, str) else None


def _comparable(settings: Any) -> Any:
    """Settings as JSON gives them back, with every class of the project under its name now."""
    if isinstance(settings, Mapping):
        return {str(key): _comparable(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_comparable(value) for value in settings]
    return canonical(settings) if isinstance(settings, str) else settings


def run_all(
    runs: Sequence[Run],
    *,
    parallel: int = 1,
    environment: Mapping[str, str] | None = None,
    on_finish: Callable[[Run], None] = lambda run: None,
) -> None:
    """Brings all runs to their end, `parallel` at a time, each in a process with `environment` (None = this one's).

    `on_finish` is called with each run that this call brought to its end, as soon as it is finished.
    If one fails, or this process is told to stop, those at work are told to stop too: they save their state, and
    the next call goes on there. Raises ValueError for a run that failed or has other settings than before.
    """
    waiting = [run for run in runs if run.finished() is None]
    working: list[tuple[Run, subprocess.Popen[bytes]]] = []
    shown = ""
    with tqdm(total=len(runs), initial=len(runs) - len(waiting), unit="run", desc="study") as bar:
        try:
            while waiting or working:
                while waiting and len(working) < parallel:
                    working.append((waiting[0], start(waiting.pop(0), environment)))
                names = ", ".join(run.name for run, _ in working)
                if names != shown:  # a log that the bar is written to has a line for each change, not for each poll
                    bar.set_postfix_str(names)
                    shown = names
                time.sleep(POLL_SECONDS)
                for run, process in [pair for pair in working if pair[1].poll() is not None]:
                    working.remove((run, process))
                    finish(run, process.returncode)
                    on_finish(run)
                    bar.update()
        finally:
            for _, process in working:
                process.terminate()
            for _, process in working:
                process.wait()


def start(run: Run, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts a run, at its checkpoint if it has one."""
    run.note(finished=False)
    checkpoint = run.checkpoint()
    command = [sys.executable, "-m", "project", *run.command, *([f"--ckpt_path={checkpoint}"] if checkpoint else [])]
    with run.log.open("ab") as log:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C reaches this process alone, which then tells each run once.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )


def finish(run: Run, code: int) -> None:
    """Notes that a run ended well. Raises ValueError if it did not."""
    if code == 0 and run.results() is not None:
        run.note(finished=True)
        return
    wrong = f"failed with exit code {code}" if code else "ended without a score after training in its results.json"
    lines = re.split(r"[\r\n]+", run.log.read_text(encoding="utf-8", errors="replace").rstrip())
    quoted = "\n  ".join(line.rstrip() for line in lines[-LAST_LINES:])
    raise ValueError(
        f"run {run.name} {wrong}. {run.log} ends with\n  {quoted}\n"
        f"Mend the cause and give the same command again; delete {run.home} to start this run afresh."
    )
