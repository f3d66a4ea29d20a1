"""What a gradient shows of the rows behind it: a division, a search, and how alike what comes out is.

Division: in a first layer that is linear, the gradient of a unit's weights over that of its bias is the row, if one row
alone moved the unit, and a mixture of rows otherwise (Phong et al. 2017, 10.1109/TIFS.2017.2787987, section 4). Search:
rows whose gradient points the way that the seen one does (Geiping et al. 2020, arXiv 2003.14053, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Images = NDArray[np.float64]
#: From rows and labels to the gradient that they would give, for each parameter a tensor, with its graph.
Gradient = Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]]

_ALIKE = 0.9999  # correlation of two quotients that are of the same row


@dataclass(frozen=True)
class Search:
    """How long and how hard to search.

    Attributes
    ----------
    low, high : float
        The public range of a feature.
    steps : int
        Of each try.
    tries : int
        From other first guesses; what fits best is kept.
    rate : float
        Of Adam, in units of the range of a feature; it falls to nothing along a cosine.
    smooth : float
        Weight of the total variation of a guess, where rows are images.
    """

    low: float = 0.0
    high: float = 1.0
    steps: int = 1000
    tries: int = 2
    rate: float = 0.1
    smooth: float = 1e-5


def by_division(
    weight: NDArray[np.floating], bias: NDArray[np.floating], count: int, low: float = 0.0, high: float = 1.0
) -> Images:
    """Return the rows that a first layer's gradient gives up by division.

    Units moved by the same single row all give that row, which is how it is told from mixtures: quotients are put
    together where they agree, and those that most units agree on come first. Sign and size of the gradient do not
    matter, so an update of one step will do.

    Parameters
    ----------
    weight : numpy.ndarray, shape (units, features)
    bias : numpy.ndarray, shape (units,)
    count : int
        At most so many rows are returned.
    low, high : float
        The public range of a feature; what lies far outside is no row.

    Returns
    -------
    numpy.ndarray of float64, shape (at most count, features)
    """
    wide, scale = weight.astype(np.float64), np.abs(bias.astype(np.float64))
    moved = scale > 1e-6 * max(float(scale.max(initial=0.0)), 1e-300)
    quotients = wide[moved] / bias.astype(np.float64)[moved, None]
    room = 0.05 * (high - low)
    fits = (quotients >= low - room).all(axis=1) & (quotients <= high + room).all(axis=1)
    quotients, scale = quotients[fits], scale[moved][fits]
    found: list[tuple[int, float, Images]] = []
    left = np.argsort(-scale)
    while len(left):
        alike = correlation(quotients[left[:1]], quotients[left])[0] >= _ALIKE
        alike[0] = True
        group = left[alike]
        found.append((len(group), float(scale[group].sum()), quotients[group[0]]))
        left = left[~alike]
    found.sort(key=lambda entry: (-entry[0], -entry[1]))
    rows = [row for _, _, row in found[:count]]
    return np.clip(np.stack(rows), low, high) if rows else np.zeros((0, weight.shape[1]))


def labels_from(bias: NDArray[np.floating], guessed: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the labels of a batch, from the gradient of the last layer's bias.

    For cross-entropy that gradient is the mean of (probability - one-hot label): with probabilities as an untrained
    model gives them to any row, what is left is the share of each class.

    Parameters
    ----------
    bias : numpy.ndarray, shape (classes,)
        Gradient of the mean loss.
    guessed : numpy.ndarray, shape (classes,)
        Mean probabilities that the model gives to rows like those of the batch.
    count : int
        Rows in the batch.

    Returns
    -------
    numpy.ndarray of int64, shape (count,)
        In ascending order; shares are rounded by largest remainders.
    """
    shares = np.clip(guessed.astype(np.float64) - bias.astype(np.float64), 0.0, None)
    wanted = count * shares / max(float(shares.sum()), 1e-12)
    whole = np.floor(wanted).astype(np.int64)
    for place in np.argsort(whole - wanted, kind="stable")[: count - int(whole.sum())]:
        whole[place] += 1
    labels = np.repeat(np.arange(len(whole)), whole)
    return np.resize(labels, count).astype(np.int64) if len(labels) else np.zeros(count, np.int64)


def by_search(
    gradient: Gradient,
    target: Sequence[NDArray[np.floating]],
    labels: NDArray[np.int64],
    features: int,
    rng: np.random.Generator,
    image: tuple[int, int] | None = None,
    search: Search | None = None,
) -> tuple[Images, float]:
    """Search for rows, within the range of a feature, whose gradient has the direction of the one that was seen.

    Parameters
    ----------
    gradient : callable
        Of the mean loss at the model that was attacked.
    target : sequence of numpy.ndarray
        The gradient that was seen, one array for each parameter.
    labels : numpy.ndarray of int64, shape (n,)
        Of the rows that are looked for.
    features : int
    rng : numpy.random.Generator
        Draws the first guesses.
    image : tuple of (int, int), optional
        Height and width, where rows are images of one channel: they are then looked for among smooth ones.
    search : Search, optional

    Returns
    -------
    rows : numpy.ndarray of float64, shape (n, features)
    distance : float
        One minus the cosine of the two gradients: 0 where they point the same way.
    """
    search = search or Search()
    wanted = torch.cat([torch.from_numpy(np.asarray(part, np.float32).reshape(-1).copy()) for part in target])
    wanted = wanted / wanted.norm().clamp_min(1e-30)
    y = torch.from_numpy(labels)
    best, least = np.zeros((len(labels), features)), float("inf")
    for _ in range(search.tries):
        first = rng.uniform(search.low, search.high, (len(labels), features)).astype(np.float32)
        rows, distance = _descend(gradient, wanted, y, torch.from_numpy(first), image, search)
        if distance < least:
            best, least = rows, distance
    return best, least


def _descend(
    gradient: Gradient,
    wanted: torch.Tensor,
    y: torch.Tensor,
    first: torch.Tensor,
    image: tuple[int, int] | None,
    search: Search,
) -> tuple[Images, float]:
    guess = first.requires_grad_(True)
    optimizer = torch.optim.Adam([guess], lr=search.rate * (search.high - search.low))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, search.steps)
    distance = torch.tensor(1.0)
    for _ in range(search.steps):
        given = torch.cat([part.reshape(-1) for part in gradient(guess, y)])
        distance = 1.0 - given @ wanted / given.norm().clamp_min(1e-30)
        objective = distance + (search.smooth * _variation(guess.view(-1, *image)) if image else 0.0)
        (guess.grad,) = torch.autograd.grad(objective, (guess,))
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            guess.clamp_(search.low, search.high)
    return guess.detach().numpy().astype(np.float64), float(distance.detach())


def _variation(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 1:] - images[:, :-1]).abs().sum() + (images[:, :, 1:] - images[:, :, :-1]).abs().sum()


def correlation(some: Images, others: Images) -> Images:
    """Return Pearson's correlation of the features of every row of one set with every row of another.

    Parameters
    ----------
    some : numpy.ndarray, shape (m, features)
    others : numpy.ndarray, shape (n, features)

    Returns
    -------
    numpy.ndarray of float64, shape (m, n)
        0 where a row is the same everywhere.
    """
    return np.asarray(_standard(some) @ _standard(others).T)


def _standard(rows: Images) -> Images:
    centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.where(length > 1e-9, centred / np.maximum(length, 1e-300), 0.0)


@dataclass(frozen=True, eq=False)
class Matched:
    """True rows, each with the guess that was given to it.

    Attributes
    ----------
    guess : numpy.ndarray of int64, shape (n,)
        Which guess; -1 where there were too few.
    similarity : numpy.ndarray of float64, shape (n,)
        Correlation of the two; 0 where there is no guess.
    """

    guess: NDArray[np.int64]
    similarity: NDArray[np.float64]


def matched(guesses: Images, truth: Images) -> Matched:
    """Give guesses to true rows one to one, so that similarity is highest in all: the kindest reading of an attack."""
    guess, similarity = np.full(len(truth), -1), np.zeros(len(truth))
    if len(guesses):
        table = correlation(truth, guesses)
        places, taken = linear_sum_assignment(table, maximize=True)
        guess[places], similarity[places] = taken, table[places, taken]
    return Matched(guess.astype(np.int64), similarity)
