"""Two packages side by side, on applicants drawn from what one of them knows: nobody's data.

That takes no traffic, so that a candidate can show how stable its scores are, and how long it
takes, before it has been asked about anybody.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from credit_risk import scoring, stability
from credit_risk.model import probability

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

    Floats = npt.NDArray[np.float64]

EXPLAINED = 200
"""Applicants whose explanations are added up."""
TIMED = 100
"""Applicants that both decide about, one by one, to see which takes longer."""
SLOW = 10
"""As many of either where an explanation takes long."""
ROUNDS = 3
"""Times that each of them is timed; the quickest counts, for others use the machine as well."""


class Beside(NamedTuple):
    """What two packages make of the same drawn applicants.

    ``score_psi`` is the population stability index of the candidate's PDs in tenths of the
    champion's, of ``rows`` applicants; None where their schemas differ. ``latency_ratio`` is the
    candidate's time over the champion's, of ``timed`` applicants of its own each.
    """

    rows: int
    score_psi: float | None
    timed: int
    latency_ratio: float


def beside(
    champion: ModelPackage,
    candidate: ModelPackage,
    clock: Callable[[], float] = time.perf_counter,
) -> Beside:
    """Compare a candidate with the package that decides.

    Args:
        champion: its reference group are the applicants.
        candidate: the other.
        clock: seconds, from whenever on.
    """
    number = SLOW if champion.model.slow or candidate.model.slow else TIMED
    pairs = list(zip(_drawn(champion, number), _drawn(candidate, number), strict=False))
    # Once before it counts: what is compiled or read at first use is no part of it.
    for package, place in ((champion, 0), (candidate, 1)):
        scoring.decide(package, [pairs[0][place]])
    mine = theirs = 0.0
    for one, other in pairs:
        # By turns, so that a machine that others use is as slow for both.
        quickest = [math.inf, math.inf]
        for _ in range(ROUNDS):
            for place, (package, applicant) in enumerate(((champion, one), (candidate, other))):
                began = clock()
                scoring.decide(package, [applicant])
                quickest[place] = min(quickest[place], clock() - began)
        mine += quickest[0]
        theirs += quickest[1]
    return Beside(
        rows=len(champion.reference),
        score_psi=_score_psi(champion, candidate),
        timed=len(pairs),
        latency_ratio=theirs / mine,
    )


def additivity_error(package: ModelPackage) -> float:
    """By how much scores and their explanations differ at most, in log-odds, of drawn applicants.

    An explanation with more than `credit_risk.model.ADDITIVITY_TOLERANCE` is never given.
    """
    rows = _spread(package.reference, SLOW if package.model.slow else EXPLAINED)
    explained = package.model.base_value + package.model.contributions(rows).sum(axis=1)
    return float(np.abs(explained - package.model.log_odds(rows)).max())


def _score_psi(champion: ModelPackage, candidate: ModelPackage) -> float | None:
    if not champion.takes_what(candidate):
        return None
    mine, theirs = (
        probability(package.model.log_odds(champion.reference)) for package in (champion, candidate)
    )
    _, before, after = stability.tenths(mine, theirs)
    return stability.psi(after, before / len(mine))


def _drawn(package: ModelPackage, number: int) -> list[Application]:
    rows = _spread(package.reference, number)
    return [package.schema.application(row) for row in rows.tolist()]


def _spread(rows: Floats, number: int) -> Floats:
    """At most so many of the rows, evenly spread over them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, number).astype(np.intp))]
