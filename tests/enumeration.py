"""Shapley values by their definition: every coalition, none skipped. Slow and plain on purpose."""

from __future__ import annotations

from itertools import product
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def shapley(
    score: Callable[[npt.NDArray[Any]], Floats], row: npt.NDArray[Any], reference: npt.NDArray[Any]
) -> Floats:
    """Interventional Shapley values of one row against a reference group.

    A coalition's worth is the mean score of the group's rows with the coalition's columns taken
    from ``row``.

    Args:
        score: from shape (n, c) to shape (n,), each row by itself; asked once, about all of them.
        row: shape (c,).
        reference: shape (m, c).
    """
    players = len(row)
    coalitions = list(product((False, True), repeat=players))
    joined = np.where(np.array(coalitions)[:, np.newaxis], row, reference)
    scores = score(joined.reshape(-1, players)).reshape(len(coalitions), -1)
    worth = dict(zip(coalitions, scores.mean(axis=1, dtype=np.float64).tolist(), strict=True))
    values = np.zeros(players)
    for coalition, without in worth.items():
        size = sum(coalition)
        share = factorial(size) * factorial(players - size - 1) if size < players else 0
        for player in range(players):
            if not coalition[player]:
                larger = (*coalition[:player], True, *coalition[player + 1 :])
                values[player] += share / factorial(players) * (worth[larger] - without)
    return values
