"""`MetricsCSV`: every logged scalar in one `metrics.csv`, which a resumed run goes on with."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from project.core.atomic_files import write_atomically


class MetricsCSV(Logger):
    """One row a step, one column a metric, empty where a metric was not logged.

    Lightning's own CSV logger deletes the rows of a run that is resumed. This one keeps them; rows that the resumed
    run repeats (it stopped after its last checkpoint) are replaced.

    Args:
        folder: Folder of `metrics.csv`.
        flush_every_n_rows: How often the file is rewritten; it is always complete at the end.
    """

    def __init__(self, folder: str | Path, flush_every_n_rows: int = 10) -> None:
        super().__init__()
        self.file = Path(folder) / "metrics.csv"
        self.flush_every_n_rows = flush_every_n_rows
        self._rows: dict[int, dict[str, Any]] | None = None
        self._unsaved = 0

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.file.parent.name

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder holds them as `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        rows = self._rows
        step = int(step or 0)
        if rows is None:
            # Rows of a resumed run that come after its checkpoint will come again. (Row `step` itself may hold what
            # was measured after `step` updates beside the figures of the update that comes again.)
            rows = self._rows = {number: row for number, row in self._read().items() if number <= step}
        rows.setdefault(step, {}).update(metrics)
        self._unsaved += 1
        if self._unsaved >= self.flush_every_n_rows:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        if not self._unsaved or self._rows is None:
            return
        columns = {"step": None} | dict.fromkeys(key for row in self._rows.values() for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for step in sorted(self._rows):
            writer.writerow({"step": step, **self._rows[step]})
        write_atomically(self.file, text.getvalue())
        self._unsaved = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self.file.is_file():
            return {}
        with self.file.open(encoding="utf-8", newline="") as stream:
            return {
                int(row["step"]): {key: value for key, value in row.items() if value and key != "step"}
                for row in csv.DictReader(stream)
            }
