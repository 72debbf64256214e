"""Challenge: a candidate is better beyond chance, or is not, and some decisions move."""

from __future__ import annotations

import numpy as np
import pytest

from credit_risk.errors import DataInvalid
from credit_risk.training import challenge
from tests import toys

POLICY = toys.policy()
GENERATOR = np.random.default_rng(3)
TRUE = GENERATOR.beta(1.0, 4.0, 3_000)
LABELS = (GENERATOR.random(3_000) < TRUE).astype(np.int64)
BLURRED = np.clip(TRUE + GENERATOR.normal(0.0, 0.15, 3_000), 0.001, 0.999)


def test_what_ranks_better_is_better_beyond_chance() -> None:
    """And the other way round, with the sign turned."""
    found = challenge.compare(LABELS, (BLURRED, POLICY), (TRUE, POLICY))
    back = challenge.compare(LABELS, (TRUE, POLICY), (BLURRED, POLICY))

    assert {found.beyond_chance(name) for name in challenge.SHOWN} == {"better"}
    assert {back.beyond_chance(name) for name in challenge.SHOWN} == {"worse"}
    assert found.differences.auc.value == pytest.approx(-back.differences.auc.value)
    assert found.differences.auc.value == pytest.approx(
        found.candidate.roc_auc - found.champion.roc_auc
    )


def test_the_same_model_is_no_better_and_moves_nobody() -> None:
    """Not by a hair."""
    found = challenge.compare(LABELS, (TRUE, POLICY), (TRUE, POLICY))

    assert {found.beyond_chance(name) for name in challenge.SHOWN} == {None}
    assert (found.newly_approved.rows, found.newly_approved.default_rate) == (0, None)
    assert sum(found.from_to[d][d] for d in found.from_to) == len(LABELS)


def test_whose_decision_moves_is_counted_with_what_became_of_them() -> None:
    """By the bands of each policy; an edge belongs to the band above it."""
    labels = np.array([0, 1, 0, 1])
    before, after = np.array([0.1, 0.2, 0.3, 0.5]), np.array([0.25, 0.19, 0.1, 0.5])

    found = challenge.compare(labels, (before, POLICY), (after, POLICY))

    assert found.from_to["APPROVE"] == {"APPROVE": 0, "REVIEW": 1, "DECLINE": 0}
    assert found.from_to["REVIEW"] == {"APPROVE": 2, "REVIEW": 0, "DECLINE": 0}
    assert (found.newly_approved.rows, found.newly_approved.default_rate) == (2, 0.5)
    assert (found.no_longer_approved.rows, found.no_longer_approved.default_rate) == (1, 0.0)
    text = "\n".join(challenge.lines(found, {"roc_auc": 0.75}))
    assert "Newly approved: 2 rows, of which 50.0% default." in text
    assert "| 0.7500 |" in text


def test_rows_of_one_outcome_compare_nothing() -> None:
    """There is no ranking of them."""
    with pytest.raises(DataInvalid, match="every label"):
        challenge.compare(np.zeros(4, dtype=np.int64), (TRUE[:4], POLICY), (TRUE[:4], POLICY))
