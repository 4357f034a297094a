"""Rows of Parquet files, of folders of a dataset, and of datasets on the hub.

`datasets` (which brings pyarrow) is needed for all but folders of .jsonl files, and is not installed with the project.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from project.core.json_files import read_object, read_rows

Rows = Iterable[tuple[str, dict[str, Any]]]
"""(place, row): where the row stands, for messages, and its columns."""
TRAIN = "train"
SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
INSTALL = "`pip install datasets`, or write the rows to a .jsonl file"


def folder_rows(folder: Path) -> Rows:
    """Rows of what `save_to_disk` wrote, or of the .jsonl or .parquet files in a folder; of several splits `train`.

    Raises ValueError for a folder without either, and for one of several splits without `train`.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = read_object(folder / "dataset_dict.json").get("splits")
        return _saved(_chosen(folder, {str(split): folder / str(split) for split in splits or ()}))
    if (folder / "state.json").is_file():
        return _saved(folder)
    for suffix, read in ((".jsonl", read_rows), (".parquet", parquet_rows)):
        files = sorted({*folder.glob(f"*{suffix}"), *folder.glob(f"*/*{suffix}")})
        if files:
            splits = defaultdict(list)
            for file in files:
                splits[SHARD.sub("", file.stem) or file.parent.name].append(file)
            chosen = _chosen(folder, splits)
            return (row for file in chosen for row in read(file))
    raise ValueError(
        f"{folder} holds no prompts: give a .jsonl or .txt file, a folder of .jsonl or .parquet files, or one that "
        "`Dataset.save_to_disk` wrote"
    )


def parquet_rows(file: Path) -> Rows:
    """Rows of a Parquet file. Raises ValueError if it is none, or without pyarrow."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"{file}: reading Parquet needs a package that is not installed: {INSTALL}") from None
    try:
        rows = [row for batch in ParquetFile(file).iter_batches() for row in batch.to_pylist()]
    except Exception as error:  # pyarrow raises classes of its own.
        raise ValueError(f"{file}: is no Parquet file that can be read ({error}): copy it again") from None
    return ((f"{file}[{position}]", row) for position, row in enumerate(rows))


def hub_rows(name: str) -> Rows:
    """Rows of the split `train` of a dataset on the hub. Raises ValueError if it cannot be had, or without datasets."""
    datasets = _datasets(f"there is no file or folder {name}, and fetching a dataset of the hub")
    try:
        return _plain(datasets, name, datasets.load_dataset(name, split=TRAIN))
    except Exception as error:  # Network, authorisation, splits, formats: the library's own classes.
        raise ValueError(f"{name}: the dataset cannot be fetched from the hub ({error}): check its name") from error


def _saved(folder: Path) -> Rows:
    """Rows of what `Dataset.save_to_disk` wrote."""
    datasets = _datasets(f"{folder} is a saved dataset; reading it")
    try:
        return _plain(datasets, str(folder), datasets.load_from_disk(str(folder)))
    except Exception as error:  # pyarrow raises classes of its own.
        raise ValueError(f"{folder}: the saved dataset cannot be read ({error}): save it again") from error


def _plain(datasets: Any, name: str, dataset: Any) -> Rows:
    """Rows in Python's own types; pictures and sounds stay bytes."""
    dataset = dataset.with_format(None)
    for column, feature in dataset.features.items():
        if hasattr(feature, "decode"):
            dataset = dataset.cast_column(column, type(feature)(decode=False))
    return ((f"{name}[{position}]", dict(row)) for position, row in enumerate(dataset))


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{what} needs a package that is not installed: {INSTALL}") from None
    return datasets


def _chosen(folder: Path, splits: dict[str, Any]) -> Any:
    """The split that training reads: `train`, or the only one."""
    if TRAIN in splits:
        return splits[TRAIN]
    if len(splits) == 1:
        return next(iter(splits.values()))
    there = ", ".join(sorted(splits)) or "none"
    raise ValueError(
        f"{folder} holds no split {TRAIN!r} (but {there}): give one of them, as a file or folder of its own"
    )
