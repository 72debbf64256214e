"""Two packages side by side: scores, explanations and time, of applicants that are nobody."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import rivals
from tests import toys
from tests.served import Broken

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage


@cache
def loaded(kind: toys.Kind) -> ModelPackage:
    """A toy package."""
    return toys.load_package(kind)


class Clock:
    """Each look at it is a second later; of every fourth, so many: somebody's turn is long."""

    def __init__(self, turn: int, seconds: float) -> None:
        self._turn = turn
        self._seconds = seconds
        self._looks = 0
        self._now = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        self._now += self._seconds if self._looks % 4 == self._turn else 1.0
        self._looks += 1
        return self._now


def test_a_package_beside_itself_is_stable_and_takes_as_long() -> None:
    """Of all its reference group, and of as many one by one as there are."""
    found = rivals.beside(loaded("trees"), loaded("trees"), Clock(0, 1.0))

    assert found == (50, 0.0, 50, 1.0)


def test_another_model_scores_otherwise() -> None:
    """The index is of its PDs in tenths of the champion's."""
    found = rivals.beside(loaded("trees"), loaded("linear"))

    assert found.score_psi is not None
    assert found.score_psi > 0.1


@pytest.mark.parametrize(("turn", "ratio"), [(1, 1 / 3), (3, 3.0)])
def test_who_takes_longer_is_told_by_turns(turn: int, ratio: float) -> None:
    """Looks at the clock come in fours: the champion's two, then the candidate's."""
    found = rivals.beside(loaded("trees"), loaded("linear"), Clock(turn, 3.0))

    assert found.latency_ratio == pytest.approx(ratio)


def test_scores_of_another_schema_are_not_compared() -> None:
    """An applicant of one is none of the other; time is taken with each one's own."""
    trees = loaded("trees")
    other = replace(trees, digests=trees.digests | {"schema.yaml": "0" * 64})

    found = rivals.beside(trees, other)

    assert found.score_psi is None
    assert found.latency_ratio > 0.0


def test_few_are_timed_where_an_explanation_takes_long() -> None:
    """Else it would take minutes."""
    slow = replace(loaded("trees"), model=Broken(score=-3.0, slow=True))

    assert rivals.beside(loaded("trees"), slow).timed == rivals.SLOW


@pytest.mark.parametrize("kind", toys.KINDS)
def test_explanations_add_up_to_the_score(kind: toys.Kind) -> None:
    """To the last digits."""
    assert rivals.additivity_error(loaded(kind)) < 1e-9


def test_an_explanation_that_does_not_add_up_is_told_by_how_much() -> None:
    """The most of any applicant."""
    off = Broken(score=2.0, contribution=0.25, base_value=0.5)  # six fields: 2.0 exactly
    good = replace(loaded("trees"), model=off)
    assert rivals.additivity_error(good) == 0.0

    bad = replace(good, model=replace(off, score=2.5))
    assert rivals.additivity_error(bad) == pytest.approx(0.5)
    assert np.isfinite(rivals.additivity_error(replace(good, model=replace(off, slow=True))))
