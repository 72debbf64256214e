"""Directions: a promise that is kept is told from one that is broken, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import profile
from credit_risk.model import probability
from credit_risk.training import directions
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

AGE, PRICE, YEARS, HISTORY = (
    toys.schema().index[name] for name in ("age", "price", "years_employed", "history")
)
PROMISED = {f.name for f in toys.schema().fields if f.direction != "none"}


def _applicants(rows: int = 200) -> Floats:
    return profile.draw(toys.population(), toys.schema(), rows, 5)


def _kind(rows: Floats) -> Floats:
    """A PD that keeps every promise of the toy portfolio."""
    years = np.nan_to_num(rows[:, YEARS], nan=5.0)
    risk = rows[:, PRICE] / 4_000 + rows[:, HISTORY] - rows[:, AGE] / 20 - years / 10
    return probability(risk)


def _measured(pds: directions.Scorer, applicants: Floats) -> dict[str, directions.Kept]:
    return directions.measure(pds, toys.schema(), toys.population(), applicants)


def test_a_model_that_keeps_its_promises_is_said_to() -> None:
    """Each promised field is measured and no other; there is nothing to warn of."""
    kept = _measured(_kind, _applicants())

    assert kept.keys() == PROMISED
    assert all(k == directions.Kept(share=0.0, largest=0.0) for k in kept.values())
    assert directions.warning(kept) is None


def test_a_broken_promise_is_counted_and_sized() -> None:
    """The PD rises by 0.2 from 60 on, for those with a poor history alone."""
    applicants = _applicants()

    def hard_on_the_old(rows: Floats) -> Floats:
        return np.where((rows[:, AGE] >= 60) & (rows[:, HISTORY] == 2), 0.5, 0.3)

    kept = _measured(hard_on_the_old, applicants)

    poor = float((applicants[:, HISTORY] == 2).mean())
    assert 0.0 < poor < 1.0
    assert kept["age"] == directions.Kept(share=poor, largest=0.2)
    assert all(k.share == 0.0 for name, k in kept.items() if name != "age")
    warned = directions.warning(kept)
    assert warned is not None
    assert f"promises for age ({poor:.1%} of applicants);" in warned


def test_a_promise_is_tried_in_both_directions_and_over_ordered_categories() -> None:
    """Turned round, the model breaks every promise, for everybody."""
    kept = _measured(lambda rows: 1.0 - _kind(rows), _applicants())

    assert all(k.share > 0.9 and k.largest > 0.01 for k in kept.values())


@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_a_promise_is_tried_at_both_ends_of_the_range(end: str) -> None:
    """Where no applicant of the population is: applications there are not refused."""
    limit = float(getattr(toys.schema().fields[AGE], end))
    step = 1.0 if end == "maximum" else -1.0

    kept = _measured(lambda rows: 0.5 + 0.1 * step * (rows[:, AGE] == limit), _applicants())

    assert kept["age"] == directions.Kept(share=1.0, largest=0.1)


def test_small_steps_the_wrong_way_add_up() -> None:
    """The furthest move is between any two values, not only neighbours."""
    kept = _measured(lambda rows: rows[:, AGE] / 1_000, _applicants())

    assert kept["age"].largest == pytest.approx((100 - 18) / 1_000)


def test_noise_is_no_movement() -> None:
    """What adding floats up in another order does to a PD breaks no promise."""
    kept = _measured(lambda rows: 0.5 + 1e-12 * rows[:, AGE], _applicants())

    assert kept["age"] == directions.Kept(share=0.0, largest=0.0)


def test_applicants_are_left_as_they_were() -> None:
    """Measuring moves copies."""
    applicants = _applicants()
    before = applicants.copy()

    _measured(_kind, applicants)

    np.testing.assert_array_equal(applicants, before)
