"""Multivariate drift: what goes together otherwise than it did is seen, and by which fields.

Most of it needs alibi-detect, which `make test-drift` installs beside the environment.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import package
from credit_risk.windows import HOUR
from monitoring import multivariate
from monitoring.analyst import Analyst
from tests import served, toys
from tests.recorded import decided
from tests.test_drift import (
    AGE,
    DEVELOPMENT,
    HISTORY,
    INCOME,
    PRICE,
    REFERENCE,
    SCHEMA,
    USE,
    YEARS,
    applicants,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

needs_alibi_detect = pytest.mark.skipif(
    not multivariate.is_available(),
    reason="alibi-detect is not here: `make test-drift` installs it, mind its licence",
)

# Other people's modules, on their import and in their calls.
pytestmark = pytest.mark.filterwarnings("default")


def test_without_the_library_the_answer_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no figure."""
    monkeypatch.setattr(multivariate, "find_spec", lambda _: None)
    rows, _ = applicants(600, seed=31)

    found = multivariate.compare(DEVELOPMENT, rows, SCHEMA.names)

    assert (found.verdict, found.rows, found.area) == ("missing", 600, None)
    assert found.reason == (
        "alibi-detect is not installed: `make install-drift`, and mind its licence"
    )


@pytest.mark.parametrize(
    ("then", "now", "whose"), [(499, 900, "model's first"), (900, 0, "window's")]
)
def test_too_few_applicants_have_no_verdict(
    monkeypatch: pytest.MonkeyPatch, then: int, now: int, whose: str
) -> None:
    """Of either group."""
    monkeypatch.setattr(multivariate, "find_spec", lambda name: name)

    found = multivariate.compare(DEVELOPMENT[:then], DEVELOPMENT[:now], SCHEMA.names)

    assert (found.verdict, found.baseline_rows, found.rows) == ("too-few", then, now)
    assert (
        found.reason == f"500 of the {whose} applicants are needed, and there are {min(then, now)}"
    )


@needs_alibi_detect
def test_applicants_like_those_of_then_are_stable() -> None:
    """In ten samples of a thousand: an area of about a half, and no field to name."""
    for seed in range(10):
        rows, _ = applicants(1_000, seed=40 + seed)

        found = multivariate.compare(DEVELOPMENT, rows, SCHEMA.names)

        assert (found.verdict, found.fields) == ("stable", ())
        assert found.area == pytest.approx(0.5, abs=0.04)
        assert found.critical == pytest.approx(0.55)


@needs_alibi_detect
def test_fields_that_go_together_as_they_did_not_are_named() -> None:
    """Incomes and prices in one order: each by itself is as it was, which no other test sees."""
    rows, pds = applicants(2_000, seed=32)
    rows[:, INCOME], rows[:, PRICE] = np.sort(rows[:, INCOME]), np.sort(rows[:, PRICE])

    found = multivariate.compare(DEVELOPMENT, rows, SCHEMA.names)

    assert found.verdict == "drifted"
    assert found.area is not None
    assert found.area > 0.7
    assert {f.field for f in found.fields} == {"income", "price"}
    assert REFERENCE.compare(REFERENCE.count(rows, pds)).verdict == "stable"


@needs_alibi_detect
def test_a_call_is_answered_by_it_from_the_process_beside_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window is held beside decisions of before it: the first of all have none."""
    made = package.load(toys.write_package(tmp_path / "packages", "trees"))
    today = time.time_ns() // 1_000
    richer = [{**row, "income": 3.0 * row["income"]} for row in toys.applications(600, seed=8)]
    with served.serving(made, tmp_path / "state") as server:
        beside = Analyst(server.settings)
        monkeypatch.setattr(server.analyst, "ask", beside.ask)
        for applications, days in ((toys.applications(700), 3), (richer, 1)):
            start = today - days * 24 * HOUR
            server.audit.append(decided(made, applications, start)).result()
        try:
            late = server.post("/monitor/drift", {"window": "36h"}).json()["multivariate"]
            first = server.post("/monitor/drift", {"window": "7d"}).json()["multivariate"]
            given = server.post("/monitor/drift", {"applications": richer}).json()["multivariate"]
        finally:
            beside.close()

    assert (late["verdict"], late["baseline_rows"], late["rows"]) == ("drifted", 700, 600)
    assert late["fields"][0]["field"] == "income"
    assert (first["verdict"], first["baseline_rows"], first["rows"]) == ("too-few", 0, 1_300)
    assert (given["baseline_rows"], given["rows"]) == (1_300, 600)


@needs_alibi_detect
def test_the_same_applicants_have_the_same_figures() -> None:
    """By the seed; of many only some are used, and all are counted."""
    rows, _ = applicants(6_000, seed=33)
    rows[:, USE] = 0

    first, again = (multivariate.compare(DEVELOPMENT, rows, SCHEMA.names, seed=1) for _ in "12")

    assert first == again
    assert (first.baseline_rows, first.rows) == (8_000, 6_000)
    assert [f.field for f in first.fields] == ["use"]


@needs_alibi_detect
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_each_field_is_compared_as_alibi_detect_does(shift: float) -> None:
    """`TabularDrift`, with the development rows themselves where we have their profile alone."""
    from alibi_detect.cd import TabularDrift  # noqa: PLC0415 - see `needs_alibi_detect`

    rows, pds = applicants(1_500, seed=34)
    rows[:, [AGE, INCOME, PRICE]] *= 1.0 + shift
    moved = np.arange(1_500) < shift * 1_500
    rows[moved, HISTORY] = 2
    places = [AGE, INCOME, PRICE, HISTORY, USE]  # years are missing for some, which it cannot take
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = TabularDrift(
            DEVELOPMENT[:, places], p_val=0.05, categories_per_feature={3: None, 4: None}
        )
        theirs = detector.predict(rows[:, places], drift_type="feature")["data"]

    ours = [REFERENCE.compare(REFERENCE.count(rows, pds)).fields[place] for place in places]

    assert YEARS not in places
    assert [c.p_value for c in ours[3:]] == pytest.approx(theirs["p_val"][3:], rel=1e-4)
    assert [c.p_value for c in ours[:3]] == pytest.approx(theirs["p_val"][:3], abs=0.06)
    assert [(c.p_value or 0.0) < 0.05 for c in ours] == [bool(d) for d in theirs["is_drift"]]
