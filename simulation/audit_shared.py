"""Canaries through the code of noise that silos share, scored from the sums that are opened.

An observer may know, or have made others omit, c + 1 shares of the noise. What an audit looks at is therefore a sum
with the shares of ``U_min - c - 1`` silos in it, one of which has the canaries; the others add their shares to nothing.
Masks cancel, and are left out. See :mod:`quire.simulation.audit_paths` for the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quire.clients.data.silo import Rows
from quire.clients.entropy import Seeded
from quire.clients.private.distributed import GradientBench, clipped_vector
from quire.clients.private.plan import SharedPlan
from quire.clients.private.work import shared_vector
from quire.clients.tasks import Task
from quire.clients.training import Workbench
from quire.conf.schema import Settings
from quire.privacy.csprng import Csprng
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, words
from quire.privacy.randomness import stream
from quire.privacy.secagg.masks import Words
from quire.simulation.audit_paths import ROW, STRENGTH, Canaries, Linear, diracs, groups, one_canary, sources


def through_shared_sum(plan: SharedPlan, releases: int, dimension: int, canaries: int, seed: int) -> Canaries:
    """Open sums of Dirac canaries that are one silo's clipped gradients, ``clip`` at a secret coordinate each.

    Parameters
    ----------
    plan : SharedPlan
        Of the record unit.
    releases : int
    dimension : int
        Of the sum; more coordinates are added where there are fewer than canaries.
    canaries : int
    seed : int
    """
    source, coins, places, total = diracs(plan.clip, dimension, canaries, seed)
    encoding, scores = encoding_of(plan.noise, len(total)), np.zeros(canaries)
    for number in range(releases):
        own = source.child("release", number)
        scores += _opened(plan.noise, encoding, words(encoding, total, own.child("rounding"))[0], own)[places]
    return Canaries(scores / plan.clip, coins, 1.0)


def through_shared_rows(plan: SharedPlan, releases: int, method: str, canaries: int, seed: int) -> Canaries:
    """Add up gradients of a linear model on rows whose gradients are Dirac canaries, ten times the clip.

    Parameters
    ----------
    plan : SharedPlan
        Of the record unit: clip and sampling rate. All canaries of a group are the rows of one silo.
    releases : int
        Each draws its batch anew.
    method : str
        ``auto`` or ``rows``.
    canaries : int
    seed : int
    """
    source, coins = sources(seed, "rows", canaries)
    scores = []
    for number, group in enumerate(groups(coins)):
        bench = GradientBench(Workbench(Linear("canaries", len(group), "linear", (), -1.0, 1.0)), method)
        model = {"0.weight": np.zeros((1, len(group)), np.float32), "0.bias": np.zeros(1, np.float32)}
        x = (ROW * np.eye(len(group), dtype=np.float32))[group]
        rows = Rows(x, np.full(len(x), plan.clip * STRENGTH / ROW, dtype=np.float32))
        encoding, found = encoding_of(plan.noise, len(group) + 1), np.zeros(len(group))
        for release in range(releases):
            own = source.child("group", number, "release", release)
            total = bench.sum(model, rows, plan.rate, plan.clip, own.child("batch")).total
            plain, _ = words(encoding, total, own.child("rounding"))
            found += _opened(plan.noise, encoding, plain, own)[:-1]  # the last is the bias
        scores.append(found / plan.clip)
    return Canaries(np.concatenate(scores), coins, STRENGTH)


def through_shared_model(
    settings: Settings, task: Task, rows: Rows, plan: SharedPlan, trials: int, seed: int
) -> Canaries:
    """Take a step of the run's own model on a few of the silo's rows, with a canary among them or without.

    Parameters
    ----------
    settings : Settings
        With ``privacy=record_distributed``.
    task : Task
    rows : Rows
        The silo's training rows.
    plan : SharedPlan
        At rate 1.
    trials : int
        Each throws one coin and opens one sum.
    seed : int
    """
    source, coins = sources(seed, "model", trials)
    model = task.initial_arrays(stream(settings.seed, "model"))
    among, background, gradient = one_canary(task, model, rows, STRENGTH * plan.clip)
    length = float(np.linalg.norm(gradient))
    encoding, scores = encoding_of(plan.noise, len(gradient)), np.empty(trials)
    for trial, inside in enumerate(coins):
        own, about = source.child("trial", trial), (Seeded(seed), "canary", model, (1, trial + 1))
        vector, _ = shared_vector(settings, task, among if inside else background, plan, *about)
        plain, _ = words(encoding, vector, own.child("rounding"))
        scores[trial] = _opened(plan.noise, encoding, plain, own) @ gradient / length / plan.clip
    return Canaries(scores, coins, length / plan.clip)


def through_shared_silos(plan: SharedPlan, releases: int, canaries: int, seed: int) -> Canaries:
    """Let silos clip and round updates that are Dirac canaries, ten times the clip, and open their sums.

    Parameters
    ----------
    plan : SharedPlan
        Of the silo unit.
    releases : int
        Openings of the same updates.
    canaries : int
        Each is a whole silo.
    seed : int
    """
    source, coins = sources(seed, "silos", canaries)
    scores = []
    for number, group in enumerate(groups(coins)):
        encoding, found = encoding_of(plan.noise, len(group)), np.zeros(len(group))
        for release in range(releases):
            own = source.child("group", number, "release", release)
            plain = np.zeros(encoding.length, np.uint32)
            for place in np.flatnonzero(group).tolist():
                update = np.zeros(len(group), np.float32)
                update[place] = STRENGTH * plan.clip
                vector, _ = clipped_vector({"update": update}, ("update",), plan.clip)
                plain += words(encoding, vector, own.child("rounding", place))[0]
            found += _opened(plan.noise, encoding, plain, own)
        scores.append(found / plan.clip)
    return Canaries(np.concatenate(scores), coins, STRENGTH)


def through_shared_update(
    settings: Settings, task: Task, rows: Rows, plan: SharedPlan, trials: int, seed: int
) -> Canaries:
    """Train the run's own model at one silo, and open sums with its clipped update in them, or without.

    Parameters
    ----------
    settings : Settings
        With ``privacy=silo_distributed``.
    task : Task
    rows : Rows
        The silo's training rows.
    plan : SharedPlan
    trials : int
        Each throws one coin and opens one sum.
    seed : int
    """
    source, coins = sources(seed, "update", trials)
    model = task.initial_arrays(stream(settings.seed, "model"))
    vector, shown = shared_vector(settings, task, rows, plan, Seeded(seed), "canary", model, (1, 1))
    length = float(np.linalg.norm(vector)) or 1.0
    encoding, scores = encoding_of(plan.noise, len(vector)), np.empty(trials)
    for trial, inside in enumerate(coins):
        own = source.child("trial", trial)
        plain, _ = words(encoding, vector if inside else np.zeros_like(vector), own.child("rounding"))
        scores[trial] = _opened(plan.noise, encoding, plain, own) @ vector / length / plan.clip
    return Canaries(scores, coins, shown["signal-norm"] / plan.clip)


def _opened(noise: SharedNoise, encoding: Encoding, plain: Words, source: Csprng) -> NDArray[np.float64]:
    """Return the decoded sum of one vector and of nothing from the others, with all shares that nobody knows."""
    total = plain
    for party in range(noise.shares):
        total = add_share(encoding, total, source.child("share", party))
    return mean_of(noise, encoding, total)[0] * noise.denominator
