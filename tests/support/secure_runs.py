"""What the tests of secure aggregation have in common: the smallest federation, and how to read what it left."""

import json

import numpy as np
from safetensors.numpy import load_file

from quire.clients import contract
from quire.clients.arrays import decode
from quire.clients.secure.agreement import agreement_of
from quire.clients.secure.terms import terms_of
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.privacy.randomness import stream

BASE = "task=breast_cancer partition=iid output.report=false output.baselines=false"
RUN, ONE = f"{BASE} strategy.rounds=2", f"{BASE} strategy.rounds=1"
SECURE, SECURE_ONE = f"{RUN} aggregation=secure", f"{ONE} aggregation=secure"
PRIVATE = "privacy=record privacy.epsilon=8 training.batch_size=16 training.steps=4 training.lr=0.05"
STAGES = tuple(stage.split(".")[1] for stage in contract.SECURE_STAGES)
ROWS = 455  # breast_cancer has 569, of which 114 are for testing


def rounds_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


def model_of(folder):
    return load_file(folder / "model.safetensors")


def apart(one, other):
    """The largest distance of two models in any coordinate."""
    return max(float(np.abs(one[name].astype(float) - other[name]).max()) for name in one)


def bound_of(overrides, rows=ROWS, silos=None):
    """How far one round's mean may be from the plain one, at most."""
    settings = compose(overrides)
    model = task_of(settings).initial_arrays(stream(settings.seed, "model"))
    point = agreement_of(terms_of(settings, settings.aggregation, settings.partition.silos), model).point
    return point.error(rows, settings.partition.silos if silos is None else silos)


def vector_of(reply, size):
    """The packed bytes at the end of a masked vector's message."""
    (message,) = decode(reply.content[contract.PROTOCOL]).values()
    return message.tobytes()[-size:]
