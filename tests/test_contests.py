"""Contests: pairs of what was decided and what the other one said, with outcomes and groups."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sqlalchemy as sa

from credit_risk import challenger, contests, groups, outcomes, scoring, shadowing
from credit_risk.audit.beside import Beside
from credit_risk.audit.log import SqlAuditLog
from credit_risk.challenger import CutOffs, Pairs, Side
from credit_risk.challenges import challenge_record, in_force
from credit_risk.decisions import Call
from credit_risk.groups import Member
from credit_risk.policy import BAND_ORDER, SEVERITY
from credit_risk.shadowing import Made, Said
from credit_risk.windows import HOUR, Window
from tests import toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

ROWS = 300
CANARY = 60


class Place:
    """A log with decisions of the trees and, in a canary, of the linear toy, each with its pair."""

    def __init__(self, url: str, trees: ModelPackage, linear: ModelPackage) -> None:
        self.log = SqlAuditLog(url, SEALING)
        self.beside = Beside(sa.make_url(url))
        self.trees, self.linear = trees, linear
        self.log.append([challenge_record(toys.NAME, linear, None, 0.2)]).result()
        self.applications = toys.applications(ROWS + CANARY)
        first, second = self.applications[:ROWS], self.applications[ROWS:]
        self.records = decided(trees, first) + decided(linear, second, NOON + 2 * HOUR)
        self.log.append(self.records).result()
        said = [*self.said(trees, linear, first), *self.said(linear, trees, second)]
        challenge = in_force(self.log, toys.NAME)
        assert challenge is not None
        with self.beside.writing() as connection:
            state = shadowing.take(connection, challenge, "one", NOON)
            assert state is not None
            shadowing.keep(connection, state, said, state.sequence + len(said), NOON, skipped=7)

    def said(
        self, decider: ModelPackage, other: ModelPackage, applications: Sequence[Application]
    ) -> Iterator[tuple[Made, Said]]:
        """What one says of what the other one decided; for every fiftieth it fails."""
        rest = iter(self.records if decider is self.trees else self.records[ROWS:])
        for number, answer in enumerate(scoring.decide(other, applications)):
            made = made_of(next(rest), number + 2)
            if number % 50 == 49:
                yield made, Said(other.version, error="ExplanationFailed")
                continue
            first = answer.reasons[0].code if answer.reasons else None
            outcome = answer.outcome
            said = (answer.probability_of_default, outcome.decision, outcome.band, first)
            yield made, Said(other.version, *said, None, 0.002, 0.001)


def made_of(record: Record, sequence: int) -> Made:
    """The decision of a record."""
    body = record.body
    codes = [reason["code"] for reason in body["reasons"]]
    assert record.model_version is not None
    assert record.decision is not None
    made = (sequence, record.id, record.time, record.model_version, record.decision)
    pd = body["probability_of_default"]
    return Made(*made, body["risk_band"], pd, codes[0] if codes else None, b"", b"")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
) -> Iterator[Place]:
    """One for all tests here."""
    url = f"sqlite:///{tmp_path_factory.mktemp('contests') / 'records.db'}"
    made = Place(url, trees_package, linear_package)
    ids = [record.id for record in made.records]
    rows: list[object] = [
        {"decision_id": one, "defaulted": number % 6 == 0, "observed": "2025-01-01"}
        for number, one in enumerate(ids)
        if number % 2
    ]
    rows += [
        {"decision_id": ids[number], "defaulted": True, "observed": "2025-01-01"}
        for number in range(0, 60, 4)
    ]
    outcomes.add(made.log, toys.NAME, rows, Call("/outcomes", "r-1"))
    members = [Member(one, "north" if n % 3 else "south") for n, one in enumerate(ids)]
    groups.add(made.log, SEALING, toys.NAME, "region", members)
    many = [Member(one, f"name-{n}") for n, one in enumerate(ids)]
    groups.add(made.log, SEALING, toys.NAME, "surname", many)
    yield made
    made.beside.close()
    made.log.close()


def side(answers: Sequence[Decision], seconds: float) -> Side:
    """What a package answers, as pairs have it."""
    return Side(
        pds=np.array([one.probability_of_default for one in answers]),
        decisions=np.array([SEVERITY[one.outcome.decision] for one in answers], dtype=np.int64),
        bands=np.array([BAND_ORDER.index(one.outcome.band) for one in answers], dtype=np.int64),
        reasons=np.array([one.reasons[0].code if one.reasons else "" for one in answers]),
        seconds=np.full(len(answers), seconds),
    )


def test_pairs_are_of_both_ways_and_compared_as_such(place: Place) -> None:
    """Whoever decided: the challenger's answers are on its side, failures on whose they are."""
    found = contests.contest(place.log, place.trees, place.linear)

    kept = [n for n in range(ROWS) if n % 50 != 49]
    kept += [ROWS + n for n in range(CANARY) if n % 50 != 49]
    applications = [place.applications[n] for n in kept]
    expected = challenger.compare(
        place.trees.version,
        place.linear.version,
        Pairs(
            side(scoring.decide(place.trees, applications), 0.0),
            side(scoring.decide(place.linear, applications), 0.0),
            np.array(kept) >= ROWS,
        ),
        CutOffs(0.4, 0.4),
    )
    for name in ("rows", "canary_rows", "agreement", "band_agreement", "from_to", "first_reasons"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.scores is not None
    assert expected.scores is not None
    assert found.scores.psi == pytest.approx(expected.scores.psi)
    assert (found.challenger_failures.failed, found.champion_failures.failed) == (6, 1)
    assert (found.rows, found.canary_rows, found.skipped) == (len(kept), CANARY - 1, 7)
    assert found.latency is not None
    # The champion took 1 ms where it decided, and 2 where it was asked; the challenger vice versa.
    ratio = (294 * 2 + 59 * 1) / (294 * 1 + 59 * 2)
    assert found.latency.ratio == pytest.approx(ratio)
    assert found.fairness == ()


def test_outcomes_and_groups_are_those_of_the_pairs(place: Place) -> None:
    """An attribute with as many values as applicants is none."""
    found = contests.contest(place.log, place.trees, place.linear, groups_sealing=SEALING)

    assert found.outcomes.rows > 150
    assert found.outcomes.canary_rows == CANARY // 2 - 1
    assert found.outcomes.differences is not None
    assert [one.attribute for one in found.fairness] == ["region"]
    (region,) = found.fairness
    assert region.reference == "north"
    assert region.worst is not None


def test_what_is_told_says_what_it_is_of(place: Place) -> None:
    """Portfolio and window; the rest is the contest."""
    window = Window(NOON // HOUR * HOUR, NOON // HOUR * HOUR + HOUR)

    told = contests.told(place.log, place.trees, place.linear, window=window)

    found = contests.contest(place.log, place.trees, place.linear, window=window)
    about = {"portfolio": toys.NAME, "from": "2023-11-14T22:00:00.000000Z"}
    about["to"] = "2023-11-14T23:00:00.000000Z"
    assert told == about | found.model_dump(mode="json")
    everything = contests.told(place.log, place.trees, place.linear)
    assert (everything["from"], everything["to"]) == (None, None)


def test_of_a_window_nothing_is_told_of_groups(place: Place) -> None:
    """Of two that differ by one applicant, the difference would be that one's."""
    window = Window(NOON // HOUR * HOUR, NOON // HOUR * HOUR + HOUR)
    both = (place.log, place.trees, place.linear)

    assert contests.told(*both, window=window, groups_sealing=SEALING)["fairness"] == []
    assert contests.told(*both, groups_sealing=SEALING)["fairness"] != []


def test_a_window_is_of_when_was_decided(place: Place) -> None:
    """Before the canary, there was none."""
    first = Window(NOON // HOUR * HOUR, NOON // HOUR * HOUR + HOUR)

    found = contests.contest(place.log, place.trees, place.linear, window=first)

    assert (found.rows, found.canary_rows) == (294, 0)


def test_outcomes_may_be_of_other_decisions(place: Place) -> None:
    """They take months; the rest is of the window, and what is not is counted."""
    first = Window(NOON // HOUR * HOUR, NOON // HOUR * HOUR + HOUR)
    everything = Window(first.since, first.until + 24 * HOUR)

    found = contests.contest(
        place.log, place.trees, place.linear, window=first, outcomes=everything
    )

    assert (found.rows, found.outcomes.canary_rows) == (294, CANARY // 2 - 1)
    assert contests.outside(place.log, place.trees, place.linear, first) == CANARY
    assert contests.outside(place.log, place.trees, place.linear, everything) == 0


def test_the_newest_are_looked_at_where_there_are_too_many(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the answer comes, and is of today."""
    monkeypatch.setattr(contests, "PAIRS_MOST", CANARY)

    found = contests.contest(place.log, place.trees, place.linear)

    assert found.rows == found.canary_rows == CANARY - 1


def test_of_packages_that_never_met_nothing_is_known(
    tmp_path_factory: pytest.TempPathFactory,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
) -> None:
    """And that is what is said."""
    url = f"sqlite:///{tmp_path_factory.mktemp('nobody') / 'records.db'}"
    with closing(SqlAuditLog(url, SEALING)) as log:
        found = contests.contest(log, trees_package, linear_package, groups_sealing=SEALING)

    assert (found.rows, found.skipped, found.agreement, found.fairness) == (0, 0, None, ())
