"""Weights in one file or in shards: cut where they should be, and nothing stale beside them."""

from __future__ import annotations

import json
import resource
import stat

import pytest
import torch
from safetensors.torch import load_file

from project.core.atomic_files import NotWritten
from project.models import weight_files
from project.models.weight_files import plan_shards, save_tensors, save_weights

WEIGHTS = {name: torch.full((10,), float(n)) for n, name in enumerate("abcd")}
"""40 bytes each."""


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def read(folder):
    index = folder / "w.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"w.safetensors"}
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


@pytest.mark.parametrize(
    ("limit", "shards"),
    [
        (None, [["a", "b", "c"]]),
        (60, [["a", "b", "c"]]),
        (59, [["a", "b"], ["c"]]),
        (10, [["a"], ["b"], ["c"]]),
    ],
)
def test_shards_are_full_but_not_larger(limit, shards):
    assert plan_shards({"a": 10, "b": 20, "c": 30}, limit) == shards


def test_nothing_is_one_empty_file():
    assert plan_shards({}, 10) == [[]]


def test_saving_again_leaves_nothing_of_before(tmp_path):
    sharded = ["w-00001-of-00002.safetensors", "w-00002-of-00002.safetensors", "w.safetensors.index.json"]
    for limit, expected in (
        (None, ["w.safetensors"]),
        (80, sharded),
        (None, ["w.safetensors"]),
        (1000, ["w.safetensors"]),
    ):
        save_weights(WEIGHTS, tmp_path, "w.safetensors", max_shard_size=limit)
        assert names(tmp_path) == expected
        assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in read(tmp_path).items())
    save_weights(WEIGHTS, tmp_path, "w.safetensors", max_shard_size=40)
    save_weights(WEIGHTS, tmp_path, "w.safetensors", max_shard_size=80)
    assert names(tmp_path) == sharded and read(tmp_path).keys() == WEIGHTS.keys()


def test_the_limit_counts_bytes_of_the_files(tmp_path):
    save_weights(WEIGHTS, tmp_path, "w.safetensors", torch.bfloat16, max_shard_size=40)
    assert names(tmp_path)[:2] == ["w-00001-of-00002.safetensors", "w-00002-of-00002.safetensors"]
    assert all(tensor.dtype == torch.bfloat16 for tensor in read(tmp_path).values())
    assert json.loads((tmp_path / "w.safetensors.index.json").read_text())["metadata"] == {"total_size": 80}


def test_a_failure_keeps_what_was_there(tmp_path, monkeypatch):
    save_weights(WEIGHTS, tmp_path, "w.safetensors")
    real, calls = weight_files.save_file, []

    def full(tensors, file, **settings):
        calls.append(file)
        if len(calls) == 2:
            raise OSError("no space left on device")
        real(tensors, file, **settings)

    monkeypatch.setattr(weight_files, "save_file", full)
    with pytest.raises(NotWritten, match=r"w-00002-of-00002\.safetensors could not be written \(no space"):
        save_weights({name: -tensor for name, tensor in WEIGHTS.items()}, tmp_path, "w.safetensors", None, 80)
    assert names(tmp_path) == ["w.safetensors"]
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in read(tmp_path).items())


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    save_weights(WEIGHTS, tmp_path, "w.safetensors")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_that_cannot_grow_is_named_and_stays_as_it_was(tmp_path):
    """As on a full disk: safetensors' own error names no file."""
    file = tmp_path / "w.safetensors"
    save_tensors(WEIGHTS, file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(NotWritten, match=rf"^{file} could not be written .*ulimit -f"):
            save_tensors({"a": torch.zeros(1000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_file(file).keys() == WEIGHTS.keys() and names(tmp_path) == ["w.safetensors"]
