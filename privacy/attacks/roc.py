"""How well a score tells members from others: ROC, AUC, true positives at few false ones, each with its interval.

Accuracy alone says little of an attack: one that is sure of a few records and guesses at the rest harms those few
(Carlini et al. 2022, arXiv 2112.03570, section 4). Scores are higher where membership is likelier; ties are kept
together, so that no threshold is counted that no attacker could set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, rankdata

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Of every interval.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rate:
    """A share with its interval.

    Attributes
    ----------
    value, low, high : float
        The interval holds with :data:`CONFIDENCE`.
    """

    value: float
    low: float
    high: float


def curve(scores: Scores, members: Flags) -> tuple[Scores, Scores]:
    """Return the ROC curve: false and true positive rates of every threshold that tells any two scores apart.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (n,)
    members : numpy.ndarray of bool, shape (n,)

    Returns
    -------
    fpr, tpr : numpy.ndarray of float64
        From (0, 0) to (1, 1).

    Raises
    ------
    ValueError
        If there is no member or nobody else, or a score is not a number.
    """
    _check(scores, members)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], members[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def auc(scores: Scores, members: Flags) -> Rate:
    """Return the chance that a member scores higher than another, a tie counting half, with DeLong's interval.

    DeLong, DeLong & Clarke-Pearson 1988, by ranks as in Sun & Xu 2014 (10.1109/LSP.2014.2337313). It takes the rows for
    independent of each other.
    """
    _check(scores, members)
    inside, outside = scores[members], scores[~members]
    m, n = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    value = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    of_members = (ranks[:m] - rankdata(inside)) / n
    of_others = 1.0 - (ranks[m:] - rankdata(outside)) / m
    variance = (np.var(of_members, ddof=1) / m if m > 1 else 0.25) + (np.var(of_others, ddof=1) / n if n > 1 else 0.25)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return Rate(value, max(0.0, value - reach), min(1.0, value + reach))


def true_positives_at(scores: Scores, members: Flags, false_positives: float) -> Rate:
    """Return the true positive rate at the threshold that lets through at most a share of the others.

    The interval is that of the members found at this threshold (Clopper & Pearson); that the threshold itself is
    estimated from the others is not in it.

    Parameters
    ----------
    scores, members
        As for :func:`curve`.
    false_positives : float
        In [0, 1].
    """
    fpr, tpr = curve(scores, members)
    best = float(tpr[np.searchsorted(fpr, false_positives + 1e-12, side="right") - 1])
    return share(round(best * int(members.sum())), int(members.sum()))


def balanced_accuracy(calls: Flags, members: Flags) -> Rate:
    """Return the mean of the shares of members and of others that are called what they are.

    Parameters
    ----------
    calls : numpy.ndarray of bool, shape (n,)
        Who is called a member, by a threshold that was set without these rows.
    members : numpy.ndarray of bool, shape (n,)
    """
    _check(calls.astype(np.float64), members)
    hit, spared = calls[members], ~calls[~members]
    value = float((hit.mean() + spared.mean()) / 2)
    spread = np.sqrt(hit.var() / len(hit) + spared.var() / len(spared)) / 2
    reach = float(norm.ppf((1 + CONFIDENCE) / 2) * spread)
    return Rate(value, max(0.0, value - reach), min(1.0, value + reach))


def best_threshold(scores: Scores, members: Flags) -> float:
    """Return the threshold at which the balanced accuracy on these rows is highest: calls are ``score > threshold``."""
    fpr, tpr = curve(scores, members)
    place = int(np.argmax(tpr - fpr))
    kept = np.sort(np.unique(scores))[::-1]
    if place == 0:
        return float("inf")
    return float((kept[place - 1] + kept[place]) / 2) if place < len(kept) else float("-inf")


def share(hits: int, of: int) -> Rate:
    """Return a share with Clopper and Pearson's exact interval (1934).

    Raises
    ------
    ValueError
        If it is a share of nothing.
    """
    if not 0 <= hits <= of or of < 1:
        raise ValueError("hits are between none and all, and there is at least one to hit")
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return Rate(hits / of, low, high)


def _check(scores: Scores, members: Flags) -> None:
    if len(scores) != len(members) or not members.any() or members.all():
        raise ValueError("there have to be members and others, and a score for each")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
