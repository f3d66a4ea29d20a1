"""Checkpoints forced to the disk beside the rounds: what is named is there, and a failure is not swallowed."""

import json
import os
import threading

import numpy as np
import pytest

from quire.strategies import checkpoint
from quire.strategies.checkpoint import Checkpoint, Checkpoints
from quire.strategies.rounds import RoundState


def state(number):
    model = {"w": np.full(8, number, np.float32)}
    return Checkpoint(RoundState(number, model), {"event": "round", "round": number, "model": "0" * 64})


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_on_its_way_to_the_disk_stays_and_is_named_once_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 0.0)
    go, fsync = threading.Event(), os.fsync

    def slow(descriptor):
        assert go.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    kept = Checkpoints(tmp_path)
    for number in (1, 2, 3):  # the rounds do not wait for the disk
        kept.save(state(number))
    assert files(tmp_path) == ["latest.json", "round-00001.safetensors", "round-00003.safetensors"]
    go.set()
    kept.close()
    assert json.loads((tmp_path / "synced.json").read_text())["file"] == "round-00001.safetensors"
    kept.save(state(4))
    kept.close()
    assert Checkpoints(tmp_path).load().state.round == 4
    (tmp_path / "latest.json").unlink()  # as a power cut may leave it
    assert Checkpoints(tmp_path).load().state.round in (1, 4)


def test_a_checkpoint_that_cannot_be_forced_to_the_disk_stops_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 0.0)

    def broken(descriptor):
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", broken)
    kept = Checkpoints(tmp_path)
    kept.save(state(1))
    kept._sync.join()
    with pytest.raises(OSError, match="the disk is gone"):
        kept.save(state(2))
    assert not (tmp_path / "synced.json").exists()


def test_files_of_an_earlier_process_are_removed(tmp_path):
    first = Checkpoints(tmp_path)
    first.save(state(1))
    again = Checkpoints(tmp_path)
    again.save(state(2))
    assert files(tmp_path) == ["latest.json", "round-00002.safetensors"]


def test_a_resumed_run_keeps_what_outlives_a_power_cut_until_there_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 0.0)
    first = Checkpoints(tmp_path)
    first.save(state(1))
    first.close()
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 1e9)
    again = Checkpoints(tmp_path)
    for number in (2, 3):
        again.save(state(number))
    (tmp_path / "latest.json").write_bytes(b"")  # as a power cut may leave what was not forced to the disk
    assert Checkpoints(tmp_path).load().state.round == 1
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 0.0)
    again.save(state(4))
    again.close()
    again.save(state(5))
    again.close()
    assert "round-00001.safetensors" not in files(tmp_path)
