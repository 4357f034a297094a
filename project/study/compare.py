"""From finished runs to a report: of the run folders of a study, or of the archive that keeps what they measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from project.study.archive import open_archive
from project.study.figure import draw
from project.study.plan import Study
from project.study.report import Report, make_report, write_report
from project.study.results import Result, read_result
from project.study.runs import Run, run_name


def compare(
    study: Study, runs: Sequence[Run], out: Path, missing: Sequence[str] = (), edited: Sequence[str] = ()
) -> list[Path]:
    """Writes `table.md`, `table.json` and the figures into `out` and returns their paths in this order.

    There is one `figure.png`, or a `figure_TABLE.png` for every table that the study names. `missing` are names of
    runs that the study asks for and `runs` does not hold, `edited` of those that were made with other settings than
    the configuration files have now: the table says so.
    Raises ValueError for a run that is not finished, and as `make_report` does; FileNotFoundError as `read_result`.
    """
    results = _results(study, runs)
    report = make_report(study, results, missing, edited)
    figures = {name: out / (f"figure_{name}.png" if name else "figure.png") for name in report.sections}
    files = write_report(report, out)
    for name, file in figures.items():
        draw(report, name, results, file)
    return [*files, *figures.values()]


def finished_part(study: Study, runs: Sequence[Run]) -> tuple[Study, list[Run], list[str]]:
    """What of a study can be reported by now: its smaller study, the runs of that, and the names of all others.

    Arms without a finished run are left out, with their measures, comparisons and bars; then seeds that are not
    finished in every arm left, because gains are compared seed by seed. Raises ValueError if nothing remains.
    """
    finished = {(run.arm, run.seed) for run in runs if run.finished() is not None}
    arms = [name for name in study.arms if any(name == done for done, _ in finished)]
    seeds = [seed for seed in study.seeds if all((name, seed) in finished for name in arms)]
    if not arms or not seeds:
        done = ", ".join(run.name for run in runs if (run.arm, run.seed) in finished) or "none"
        raise ValueError(
            f"of the runs of {study.name} {done} are finished: a report needs one seed that is finished in every arm "
            "with a finished run; train on without --report-only, or give the --out or --archive with the runs"
        )
    used = [run for run in runs if run.arm in arms and run.seed in seeds]
    names = {run.name for run in used}
    whole = [run_name(arm, seed) for seed in study.seeds for arm in study.arms]
    return study.part(arms, seeds), used, [name for name in whole if name not in names]


def saved_report(study: Study, archive: Path) -> Report:
    """The report on what an archive holds of a study, whatever settings its runs were made with: it names those that
    the configuration files would make otherwise now.

    Raises as `open_archive`, `finished_part` and `make_report` do.
    """
    with TemporaryDirectory() as folder:
        saved = open_archive(archive, study, Path(folder))
        study, runs, missing = finished_part(study, saved.runs)
        edited = [run.name for run in runs if run.name in saved.edited]
        return make_report(study, _results(study, runs), missing, edited)


def _results(study: Study, runs: Sequence[Run]) -> dict[str, list[Result]]:
    """By arm, in the order of the runs."""
    results: dict[str, list[Result]] = {arm: [] for arm in study.arms}
    for run in runs:
        folder = run.results()
        if folder is None:
            raise ValueError(f"run {run.name} has no score after training in {run.home}: finish the study's runs first")
        results[run.arm].append(read_result(folder, study.benchmarks_of(run.arm), study.columns))
    return results
