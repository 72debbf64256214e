"""Shadowing: one asks at a time, every decision once, and nothing of who was erased."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk import shadowing
from credit_risk.audit import erasure, retention
from credit_risk.audit.beside import Beside
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.retention import Terms
from credit_risk.audit.tables import SHADOW
from credit_risk.challenges import challenge_record, in_force
from credit_risk.decisions import start_record
from credit_risk.errors import Conflict
from credit_risk.shadowing import FAILURES_MOST, LEASE, Behind, End, Said
from tests import toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.shadowing import Chunk, State

NOW = NOON + 3_600_000_000
ROWS = 6


class Place:
    """A log in which a package was challenged before some decisions."""

    def __init__(self, url: str, package: ModelPackage, challenger: ModelPackage) -> None:
        self.log = SqlAuditLog(url, SEALING)
        self.beside = Beside(sa.make_url(url))
        self.package = package
        self.challenger = challenger
        self.log.append([start_record(package)]).result()
        self.made = self.challenged()
        self.records = decided(package, toys.applications(ROWS))
        self.log.append(self.records).result()

    def challenged(self, by: ModelPackage | None = None) -> Challenge:
        """Another challenge, which is in force from now on."""
        package = by or self.challenger
        before = in_force(self.log, toys.NAME)
        self.log.append([challenge_record(toys.NAME, package, before, 0.0)]).result()
        found = in_force(self.log, toys.NAME)
        assert found is not None
        return found

    def take(self, holder: str = "one", now: int = NOW, of: Challenge | None = None) -> State:
        """Be the one who asks."""
        found = self.try_to_take(holder, now, of)
        assert found is not None
        return found

    def try_to_take(self, holder: str, now: int, of: Challenge | None = None) -> State | None:
        """The same, if nobody else is."""
        with self.beside.writing() as connection:
            return shadowing.take(connection, of or self.made, holder, now)

    def read(self, after: State) -> Chunk:
        """The decisions behind it."""
        return shadowing.read(self.log, toys.NAME, after.sequence)

    def keep(self, before: State, chunk: Chunk, *, skipped: int = 0) -> State:
        """Write something about each decision."""
        said = [(made, self.said()) for made in chunk.decisions]
        with self.beside.writing() as connection:
            return shadowing.keep(connection, before, said, chunk.upto, NOW, skipped=skipped)

    def said(self) -> Said:
        """What is said of everybody."""
        return Said(self.challenger.version, 0.3, "REVIEW", "HIGH", "AGE", None, 0.001, 0.002)

    def failed(self, end: End, holder: str = "one") -> State | None:
        """Note an end."""
        with self.beside.writing() as connection:
            return shadowing.failed(connection, self.made, holder, end, NOW)

    def shadow(self) -> list[sa.Row[tuple[object, ...]]]:
        """What is in the table, in the order of the decisions."""
        with self.log.reading() as connection:
            return [*connection.execute(sa.select(SHADOW).order_by(SHADOW.c.decided))]


@pytest.fixture
def place(
    any_url: str, trees_package: ModelPackage, linear_package: ModelPackage
) -> Iterator[Place]:
    """On each kind of database."""
    made = Place(any_url, trees_package, linear_package)
    yield made
    made.beside.close()
    made.log.close()


@pytest.fixture
def quick(
    tmp_path_factory: pytest.TempPathFactory,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
) -> Iterator[Place]:
    """On SQLite alone."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shadowing') / 'records.db'}"
    made = Place(url, trees_package, linear_package)
    yield made
    made.beside.close()
    made.log.close()


def test_every_decision_since_the_challenge_is_read_and_kept_once(place: Place) -> None:
    """With what was decided beside it, from the place of the challenge on, and none before it."""
    state = place.take()
    chunk = place.read(state)

    assert [made.id for made in chunk.decisions] == [record.id for record in place.records]
    assert chunk.upto == chunk.end == state.sequence + ROWS
    after = place.keep(state, chunk)
    assert place.read(after).decisions == ()
    rows = place.shadow()
    assert [row.decision_id for row in rows] == [record.id for record in place.records]
    for row, record in zip(rows, place.records, strict=True):
        versions = (place.package.version, place.challenger.version)
        assert (row.decided_by, row.model_version) == versions
        assert (row.made_decision, row.made_band) == (record.decision, record.body["risk_band"])
        assert row.made_pd == record.body["probability_of_default"]
        codes = [reason["code"] for reason in record.body["reasons"]]
        assert row.made_reason == (codes[0] if codes else None)
        assert (row.pd, row.decision, row.reason, row.seconds) == (0.3, "REVIEW", "AGE", 0.001)
    assert shadowing.state(place.log, toys.NAME) == after


def test_one_asks_at_a_time(place: Place) -> None:
    """Another waits until nobody has heard of the first, whose late word then counts no more."""
    first = place.take("one")
    assert place.try_to_take("two", NOW + LEASE - 1) is None
    assert place.take("one", NOW + 1).holder == "one"

    second = place.take("two", NOW + 2 * LEASE)
    assert second.sequence == first.sequence
    with pytest.raises(Conflict):
        place.keep(first, place.read(first))
    assert place.shadow() == []
    assert place.failed(End("hung"), "one") is None
    assert place.keep(second, place.read(second)).holder == "two"
    assert len(place.shadow()) == ROWS


def test_a_challenge_by_the_same_package_goes_on_where_it_was(quick: Place) -> None:
    """Nothing is lost; failures before count no more. Another package begins anew."""
    quick.take()
    failed = quick.failed(End("crashed", (3, 4)))
    assert failed is not None
    place = failed.sequence

    again = quick.take(of=quick.challenged())
    assert (again.sequence, again.failures, again.cause, again.lost_first) == (place, 0, None, None)
    other = quick.take(of=quick.challenged(quick.package))
    assert other.sequence > place + ROWS
    assert quick.read(other).decisions == ()


def test_an_end_is_noted_with_its_places_until_they_are_behind(quick: Place) -> None:
    """So that who begins next knows where to be careful."""
    state = quick.take()
    within = (state.sequence + 1, state.sequence + ROWS)

    failed = quick.failed(End("crashed", within))
    assert failed is not None
    assert (failed.failures, failed.cause) == (1, "crashed")
    assert (failed.lost_first, failed.lost_last) == within
    assert quick.take().lost_first == within[0]
    kept = quick.keep(failed, quick.read(failed))
    assert (kept.lost_first, kept.lost_last, kept.failures) == (None, None, 1)


def test_who_ends_too_often_is_given_up_unless_it_went_well_for_long(quick: Place) -> None:
    """The next failure after an hour is the first again."""
    quick.take()
    for number in range(1, FAILURES_MOST + 1):
        found = quick.failed(End("hung"))
        assert found is not None
        assert (found.failures, found.given_up) == (number, number == FAILURES_MOST)

    found = quick.failed(End("memory", went_well=True))
    assert found is not None
    assert (found.failures, found.given_up) == (1, False)


def test_what_is_skipped_is_counted(quick: Place) -> None:
    """And nothing is written of it."""
    state = quick.take()
    empty = quick.read(state)._replace(decisions=())

    after = quick.keep(state, empty, skipped=ROWS)

    assert (after.skipped, after.sequence) == (ROWS, state.sequence + ROWS)
    assert quick.shadow() == []


def test_how_far_behind_is_told_in_records_and_seconds(quick: Place) -> None:
    """From the first decision that was not asked about; records of other kinds do not wait."""
    state = quick.take()

    found = shadowing.behind(quick.log, toys.NAME, state.sequence, NOON + 90_000_000)
    assert found == Behind(ROWS, 90.0)
    after = quick.keep(state, quick.read(state))
    assert shadowing.behind(quick.log, toys.NAME, after.sequence, NOW) == Behind(0, 0.0)
    quick.log.append([start_record(quick.package)]).result()
    assert shadowing.behind(quick.log, toys.NAME, after.sequence, NOW) == Behind(0, 0.0)


def test_nothing_is_kept_of_who_is_erased(place: Place) -> None:
    """Neither what was written before, nor what is written by who read it before."""
    state = place.take()
    chunk = place.read(state)
    first, second = (record.id for record in place.records[:2])
    erase(place.log, first)

    place.keep(state, chunk)
    kept = {row.decision_id for row in place.shadow()}
    assert kept == {record.id for record in place.records} - {first}

    erase(place.log, second)
    assert {row.decision_id for row in place.shadow()} == kept - {second}
    later = place.take()
    assert place.read(later._replace(sequence=state.sequence)).decisions == tuple(
        made for made in chunk.decisions if made.id not in {first, second}
    )


def test_retention_takes_what_was_said(quick: Place) -> None:
    """With the decisions that it was about."""
    state = quick.take()
    quick.keep(state, quick.read(state))
    terms = Terms(25, NOON + 3_000_000, open_reviews=True)

    taken = retention.take(quick.log, quick.log, terms, by="test", progress=lambda _n, _of: None)

    assert taken["decision"] == 3
    left = {row.decision_id for row in quick.shadow()}
    assert left == {record.id for record in quick.records[3:]}


def test_a_decision_that_was_altered_is_left_out(quick: Place) -> None:
    """That it was is what the chain says."""
    state = quick.take()
    with quick.beside.writing() as connection:
        altered = "UPDATE records SET body = '{}' WHERE id = :id"
        connection.execute(sa.text(altered), {"id": quick.records[2].id})

    ids = [made.id for made in quick.read(state).decisions]

    assert ids == [record.id for record in (*quick.records[:2], *quick.records[3:])]


def test_without_a_challenge_there_is_no_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor anything to be behind of."""
    url = f"sqlite:///{tmp_path_factory.mktemp('nobody') / 'records.db'}"
    with closing(SqlAuditLog(url, SEALING)) as log:
        assert shadowing.state(log, toys.NAME) is None
        assert shadowing.behind(log, toys.NAME, 0, NOW) == Behind(0, 0.0)


def erase(log: SqlAuditLog, record_id: str) -> None:
    """Erase a person's data."""
    erasure.erase(log, log, [record_id], by="test", reason="asked", progress=lambda _n, _of: None)
