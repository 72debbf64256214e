"""Case work: steps on record, one after the other, and what they add up to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk import casework
from credit_risk.audit import queue
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import RECORDS
from credit_risk.casework import Casework
from credit_risk.decisions import Call, new_id
from credit_risk.errors import (
    EvidenceInvalid,
    PackageNotFound,
    RecordNotFound,
    RequestInvalid,
    ReviewRefused,
)
from credit_risk.reviews import Case, Verdict
from tests import toys
from tests.audit.tampering import Case as Tampering
from tests.sealing import SEALING
from tests.test_notices import WORDINGS
from tests.test_reviews import decided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.queue import WaitingState
    from credit_risk.audit.records import Record, RecordKind
    from credit_risk.package import Wordings
    from credit_risk.policy import DecisionName
    from credit_risk.reviews import Closing, PersonsDecision
    from loadtests.cluster import Cluster

MINUTE = 60_000_000
APPROVED = {"decision": "APPROVE", "reason": "COMPENSATING_FACTORS"}
DECLINED = {"decision": "DECLINE", "reason": "LENGTH_OF_EMPLOYMENT"}


@dataclass
class Counted:
    """Who counts, and what."""

    records: list[RecordKind] = field(default_factory=list)
    closed: list[Closing] = field(default_factory=list)

    def recorded(self, kind: RecordKind, number: int) -> None:
        """So many more."""
        self.records += [kind] * number

    def reviewed(self, portfolio: str, closing: Closing) -> None:
        """One more."""
        assert portfolio == toys.NAME
        self.closed.append(closing)


@dataclass
class Office:
    """Where people work: a log, and the desk over it."""

    log: SqlAuditLog
    counted: Counted = field(default_factory=Counted)

    def __post_init__(self) -> None:
        self.desk = Casework(self.log, self._wordings, self.counted, toys.NAME)
        self.now = decided().time

    def _wordings(self, version: str) -> Wordings:
        if version != "0123456789ab":
            raise PackageNotFound(f"no package {version}")
        return WORDINGS

    def decide(
        self,
        decision: DecisionName = "REVIEW",
        scored: DecisionName = "REVIEW",
        *,
        portfolio: str = toys.NAME,
        model_version: str = "0123456789ab",
    ) -> str:
        """Put a decision on record, a second after the one before; returns its id."""
        self.now += 1_000_000
        record = replace(
            decided(decision, scored),
            id=new_id(),
            time=self.now,
            portfolio=portfolio,
            model_version=model_version,
        )
        self.log.append([record]).result()
        return record.id

    def call(self) -> Call:
        """A request, now."""
        return Call("/decisions/{id}/review", "r-9", at=self.now)

    def review(
        self, decision_id: str, reviewer: str, decision: PersonsDecision, reason: str = ""
    ) -> Case:
        """Somebody decides, for the first approved reason that comes to mind."""
        fitting = APPROVED if decision == "APPROVE" else DECLINED
        verdict = Verdict(reviewer, decision, reason or fitting["reason"], "a secret note")
        return asyncio.run(self.desk.review(decision_id, verdict, self.call()))

    def claim(self, decision_id: str, reviewer: str) -> Case:
        """Somebody claims."""
        return asyncio.run(self.desk.claim(decision_id, reviewer, self.call()))

    def release(self, decision_id: str, reviewer: str) -> Case:
        """Somebody lets go."""
        return asyncio.run(self.desk.release(decision_id, reviewer, self.call()))

    def case(self, decision_id: str) -> Case:
        """What is on record."""
        return self.desk.case(self.desk.decision(decision_id))

    def steps(self, decision_id: str) -> list[Record]:
        """The records about a decision, the first one first."""
        return self.log.find(about=decision_id)[::-1]

    def waiting(
        self, state: WaitingState | None = None, after: str | None = None, limit: int = 50
    ) -> list[str]:
        """The ids of the cases that wait."""
        rows = casework.waiting(
            self.log, toys.NAME, self.now, state=state, after=after, limit=limit
        )
        return [row["decision_id"] for row in rows]


@pytest.fixture(params=["sqlite", "postgresql"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """One nobody has worked in, on each kind of database in turn."""
    url = f"sqlite:///{tmp_path}/records.db"
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        url = cluster.url(request.getfixturevalue("database"))
    log = SqlAuditLog(url, SEALING)
    yield Office(log)
    log.close()


def test_a_decision_of_review_waits_from_the_moment_it_is_on_record(office: Office) -> None:
    """And no other decision does."""
    office.decide("APPROVE", "APPROVE")
    referred = office.decide()
    office.decide("DECLINE", "DECLINE")

    assert office.waiting() == [referred]


def test_each_step_is_a_record_about_the_decision(office: Office) -> None:
    """In order, the last word with its decision, by the versions that decided."""
    decision_id = office.decide()
    office.claim(decision_id, "ada")
    office.release(decision_id, "ada")
    case = office.review(decision_id, "ben", "DECLINE")

    steps = office.steps(decision_id)
    assert [(s.kind, s.body["action"], s.decision) for s in steps] == [
        ("claim", "claim", None),
        ("claim", "release", None),
        ("review", "close", "DECLINE"),
    ]
    assert {s.model_version for s in steps} == {"0123456789ab"}
    assert {s.request_id for s in steps} == {"r-9"}
    assert case == office.case(decision_id)
    assert office.waiting() == []
    assert office.counted.records == ["claim", "claim", "review"]
    assert [closing.decision for closing in office.counted.closed] == ["DECLINE"]


def test_the_note_is_personal_data(office: Office) -> None:
    """Sealed, and in no body."""
    decision_id = office.decide()
    office.review(decision_id, "ada", "APPROVE")

    (step,) = office.steps(decision_id)
    assert step.personal == {"note": "a secret note"}
    assert "secret" not in str(step.body)


def test_an_override_stays_in_the_queue_until_a_second_person_agrees(office: Office) -> None:
    """A decline that nobody waited for gets there by the proposal."""
    decision_id = office.decide("DECLINE", "DECLINE")
    office.review(decision_id, "ada", "APPROVE")

    assert office.waiting() == office.waiting(state="proposed") == [decision_id]
    (row,) = casework.waiting(office.log, toys.NAME, office.now)
    assert row["proposal"]["reviewer"] == "ada"
    assert office.counted.closed == []

    closed = office.review(decision_id, "ben", "APPROVE").closed
    assert closed is not None
    assert closed.override == "low-side"
    assert office.waiting() == []


def test_a_disagreement_waits_in_the_queue_for_a_third_person(office: Office) -> None:
    """Who sees there what the two have said; a claim of the third keeps others off."""
    decision_id = office.decide("APPROVE", "APPROVE")
    office.review(decision_id, "ada", "DECLINE")
    office.review(decision_id, "ben", "APPROVE")

    (row,) = casework.waiting(office.log, toys.NAME, office.now, state="disputed")
    assert (row["decision_id"], row["state"]) == (decision_id, "disputed")
    assert (row["proposal"]["reviewer"], row["dissent"]["reviewer"]) == ("ada", "ben")
    assert office.waiting(state="open") == office.waiting(state="proposed") == []
    office.claim(decision_id, "cyd")
    assert office.waiting(state="claimed") == [decision_id]
    assert office.waiting(state="disputed") == []
    assert list(queue.differences(office.log.reading)) == []

    assert office.review(decision_id, "cyd", "APPROVE").state(office.now) == "closed"
    assert office.waiting() == []


def test_the_queue_is_found_by_state_oldest_first_page_by_page(office: Office) -> None:
    """A claim that is over is none."""
    ids = [office.decide() for _ in range(5)]
    office.claim(ids[1], "ada")

    assert office.waiting() == ids
    assert office.waiting(state="claimed") == [ids[1]]
    assert office.waiting(state="open") == [ids[0], *ids[2:]]
    assert office.waiting(limit=2) == ids[:2]
    assert office.waiting(limit=2, after=ids[1]) == ids[2:4]
    office.now += 30 * MINUTE
    assert office.waiting(state="claimed") == []
    # The page goes on behind a case that was closed meanwhile.
    office.review(ids[1], "ben", "APPROVE")
    assert office.waiting(after=ids[1]) == ids[2:]


@pytest.mark.parametrize("after", ["x", "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"])
def test_a_page_behind_nothing_is_refused(office: Office, after: str) -> None:
    """There is no such place."""
    with pytest.raises(RecordNotFound):
        office.waiting(after=after)


def test_only_decisions_of_the_portfolio_are_found(office: Office) -> None:
    """Neither others', nor records of something else, nor what is no id."""
    elsewhere = office.decide(portfolio="tricycle-leases")
    decision_id = office.decide()
    office.claim(decision_id, "ada")

    assert office.waiting() == [decision_id]
    for name in (elsewhere, office.steps(decision_id)[0].id, "x", new_id()):
        with pytest.raises(RecordNotFound):
            office.claim(name, "ada")


def test_a_reason_has_to_be_approved_for_the_decision(office: Office) -> None:
    """One to decline is none to approve; and nothing is recorded."""
    decision_id = office.decide()

    wrong: list[tuple[PersonsDecision, str]] = [
        ("APPROVE", "LENGTH_OF_EMPLOYMENT"),
        ("DECLINE", "COMPENSATING_FACTORS"),
        ("DECLINE", "WEATHER"),
    ]
    for decision, reason in wrong:
        with pytest.raises(RequestInvalid, match="Not an approved reason"):
            office.review(decision_id, "ada", decision, reason)
    assert office.steps(decision_id) == []


def test_without_the_package_that_decided_no_step_is_taken(office: Office) -> None:
    """Its policy says who has to agree, and its reasons what may be said."""
    decision_id = office.decide(model_version="ba9876543210")

    with pytest.raises(PackageNotFound):
        office.review(decision_id, "ada", "APPROVE")
    assert office.steps(decision_id) == []


@pytest.mark.parametrize("decision", ["REVIEW", "DECLINE"])
def test_who_is_second_by_a_moment_is_refused(office: Office, decision: DecisionName) -> None:
    """Whether the case is in the queue, or gets there by the step of who was first."""
    decision_id = office.decide(decision, decision)
    firsts: list[Case] = []

    def meanwhile(_: str) -> Wordings:
        """What is asked for last, when everything else was read."""
        firsts.append(office.review(decision_id, "ada", "APPROVE"))
        return WORDINGS

    late = replace(office.desk, wordings=meanwhile)
    verdict = Verdict("ben", "APPROVE", "COMPENSATING_FACTORS", "-")
    with pytest.raises(ReviewRefused, match="Somebody else took a step"):
        asyncio.run(late.review(decision_id, verdict, office.call()))

    assert [office.case(decision_id)] == firsts
    assert len(office.steps(decision_id)) == 1


def test_two_claims_at_once_have_one_holder(office: Office) -> None:
    """The other is told."""
    decision_id = office.decide()

    async def both() -> list[object]:
        return await asyncio.gather(
            *(office.desk.claim(decision_id, name, office.call()) for name in ("ada", "ben")),
            return_exceptions=True,
        )

    outcomes = asyncio.run(both())

    (held,) = [outcome for outcome in outcomes if isinstance(outcome, Case)]
    assert [type(o) for o in outcomes if o is not held] == [ReviewRefused]
    assert office.case(decision_id) == held


def test_the_summary_counts_overrides_by_direction_decision_and_reason(office: Office) -> None:
    """Against how many decisions of the kind there were; the reason is the first person's."""
    declines = [office.decide("DECLINE", "DECLINE") for _ in range(4)]
    approval = office.decide("APPROVE", "APPROVE")
    referred = office.decide("REVIEW", "APPROVE")
    left = office.decide()
    office.review(declines[0], "ada", "APPROVE")
    office.review(declines[0], "ben", "APPROVE", "INFORMATION_VERIFIED")
    office.review(approval, "ada", "DECLINE")
    office.review(approval, "ben", "APPROVE")
    office.review(referred, "ada", "DECLINE")
    office.review(referred, "ben", "DECLINE")

    told = casework.summary(office.log, toys.NAME)

    assert told["decisions"] == {"APPROVE": 1, "REVIEW": 2, "DECLINE": 4}
    assert told["reviews"] == {
        "closed": 2,
        "approved": 1,
        "declined": 1,
        "proposed": 3,
        "returned": 1,
    }
    assert told["overrides"] == [
        {
            "direction": "high-side",
            "decision": "REVIEW",
            "number": 1,
            "of": 2,
            "rate": 0.5,
            "reasons": {"LENGTH_OF_EMPLOYMENT": 1},
        },
        {
            "direction": "low-side",
            "decision": "DECLINE",
            "number": 1,
            "of": 4,
            "rate": 0.25,
            "reasons": {"COMPENSATING_FACTORS": 1},
        },
    ]
    assert told["waiting_now"] == 2
    assert set(office.waiting()) == {approval, left}


@pytest.mark.parametrize("kind", ["decision", "claim", "review"])
def test_a_record_of_a_case_that_says_nothing_is_named(office: Office, kind: RecordKind) -> None:
    """Its hash fits, as of one that somebody rewrote; nobody trips over what is missing."""
    decision_id = office.decide("DECLINE", "DECLINE")
    office.review(decision_id, "ada", "APPROVE")
    office.claim(decision_id, "ben")
    (record,) = office.log.find(kind=kind)
    place = sa.select(RECORDS.c.sequence).where(RECORDS.c.id == record.id)
    with office.log.reading() as connection:
        sequence = connection.execute(place).scalar_one()
    Tampering(office.log, []).rewrite(sequence, body="{}")

    told = f"record {record.id}: it does not say what a server writes in a record of a {kind}"
    for use in (
        lambda: office.case(decision_id),
        lambda: office.desk.story(decision_id, office.now),
        lambda: office.claim(decision_id, "ben"),
    ):
        with pytest.raises(EvidenceInvalid, match=told):
            use()
    if kind == "review":
        with pytest.raises(EvidenceInvalid, match=told):
            casework.summary(office.log, toys.NAME)


def test_the_summary_is_of_the_period_asked_for(office: Office) -> None:
    """The first instant belongs to it, the last does not; over no decisions there is no rate."""
    decision_id = office.decide("DECLINE", "DECLINE")
    office.now += 60 * MINUTE
    later = office.now
    office.review(decision_id, "ada", "APPROVE")
    office.review(decision_id, "ben", "APPROVE")

    before = casework.summary(office.log, toys.NAME, until=later)
    after = casework.summary(office.log, toys.NAME, since=later)

    assert (before["decisions"]["DECLINE"], before["overrides"]) == (1, [])
    assert after["decisions"]["DECLINE"] == 0
    assert (after["overrides"][0]["number"], after["overrides"][0]["rate"]) == (1, None)
    assert after["since"] == "2025-11-22T09:26:41.000000Z"
