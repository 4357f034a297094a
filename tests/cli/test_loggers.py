"""`metrics.csv`: columns that appear late, and a resumed run."""

from __future__ import annotations

from pathlib import Path

from project.cli.loggers import MetricsCSV
from project.core.run_folder import RunFolder, folder_of_checkpoint


def test_columns_may_appear_late(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path, flush_every_n_rows=1)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"b": 2.0}, step=1)
    logger.log_metrics({"a": 3.0}, step=1)
    assert (tmp_path / "metrics.csv").read_text() == "step,a,b\n0,1.0,\n1,3.0,2.0\n"


def test_a_resumed_run_replaces_what_comes_again(tmp_path: Path) -> None:
    first = MetricsCSV(tmp_path)
    for step in range(5):
        first.log_metrics({"loss": float(step)}, step=step)
    first.log_metrics({"score": 0.5}, step=3)
    first.finalize("interrupted")
    resumed = MetricsCSV(tmp_path)
    resumed.log_metrics({"loss": 30.0}, step=3)
    resumed.finalize("success")
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,score\n0,0.0,\n1,1.0,\n2,2.0,\n3,30.0,0.5\n"


def test_runs_are_numbered(tmp_path: Path) -> None:
    runs = RunFolder(name="a/b", root=str(tmp_path))
    assert [runs.claim().name for _ in range(2)] == ["version_0", "version_1"]
    (tmp_path / "a/b/version_10").mkdir()
    folder = runs.claim()
    assert folder == tmp_path / "a/b/version_11"
    ckpt = folder / "checkpoints/last.ckpt"
    assert folder_of_checkpoint(ckpt) is None
    (folder / "config.yaml").write_text("")
    assert folder_of_checkpoint(ckpt) == folder and folder_of_checkpoint(None) is None
