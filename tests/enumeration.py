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
        score: from shape (m, c) to shape (m,).
        row: shape (c,).
        reference: shape (m, c).
    """
    players = len(row)
    worth = {
        coalition: float(score(np.where(np.array(coalition), row, reference)).mean())
        for coalition in product((False, True), repeat=players)
    }
    values = np.zeros(players)
    for coalition, without in worth.items():
        size = sum(coalition)
        share = factorial(size) * factorial(players - size - 1) if size < players else 0
        for player in range(players):
            if not coalition[player]:
                joined = (*coalition[:player], True, *coalition[player + 1 :])
                values[player] += share / factorial(players) * (worth[joined] - without)
    return values
