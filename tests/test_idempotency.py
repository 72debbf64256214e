"""One key, one decision: claims and answers in real databases, SQLite's and PostgreSQL's."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credit_risk import idempotency
from credit_risk.audit import erasure, retention
from credit_risk.audit.keys import Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import IDEMPOTENCY
from credit_risk.errors import (
    Conflict,
    EvidenceInvalid,
    KeyInUse,
    KeyReused,
    RecordingFailed,
)
from credit_risk.idempotency import MARGIN_SECONDS, Answers, Claim, Kept
from tests.audit.test_log import NOON, made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from credit_risk.idempotency import Outcome

BODY = b'{"age": 41, "income": 52000.0}'
ANSWER = Kept(200, "application/json", b'{"decision":"APPROVE"}')
OLD, NEW = bytes(32), bytes([1]) * 32
SECONDS = 5.0
KEPT_SECONDS = 3_600.0


@dataclass
class Clock:
    """Time that passes when a test says so, microseconds since the epoch."""

    now: int = NOON

    def __call__(self) -> int:
        """The time."""
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        """Later."""
        self.now += round(1e6 * seconds)


@dataclass
class Counted:
    """Notes what came of keys."""

    outcomes: list[Outcome] = field(default_factory=list)

    def keyed(self, outcome: Outcome) -> None:
        """Note it."""
        self.outcomes.append(outcome)


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """An empty log."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """Noon."""
    return Clock()


@pytest.fixture
def counted() -> Counted:
    """Nothing yet."""
    return Counted()


@pytest.fixture
def answers(log: SqlAuditLog, clock: Clock, counted: Counted) -> Answers:
    """None kept yet."""
    return Answers(log, SEALING, counted, "toy", KEPT_SECONDS, clock)


def run(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it comes to
    """Its result."""
    return asyncio.run(work)


def claim(answers: Answers, key: str = "key-1", body: bytes = BODY) -> Claim:
    """A claim of one that has none."""
    claimed = run(answers.claim("/predict", key, body, SECONDS))
    assert isinstance(claimed, Claim)
    return claimed


def decide(answers: Answers, claimed: Claim, kept: Kept = ANSWER, **fields: object) -> str:
    """Record a decision and keep its answer; the id of its record."""
    record = made(body={"kept_as": claimed.place}, personal={"input": {}}, **fields)
    run(answers.audit.record([record], alongside=claimed.keep(kept)))
    return record.id


def again(answers: Answers, key: str = "key-1", body: bytes = BODY) -> Kept:
    """The answer that is there."""
    kept = run(answers.claim("/predict", key, body, SECONDS))
    assert isinstance(kept, Kept)
    return kept


def rows(url: str) -> list[sa.Row[Any]]:
    """What the database has."""
    engine = sa.create_engine(sa.make_url(url))
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.select(IDEMPOTENCY)))
    finally:
        engine.dispose()


def test_the_second_request_gets_the_answer_of_the_first(
    answers: Answers, counted: Counted
) -> None:
    """Status, media type and every byte."""
    for kept in (ANSWER, Kept(422, "application/problem+json", b"\n \xff\n")):
        key = f"key-{kept.status}"
        decide(answers, claim(answers, key), kept)

        assert again(answers, key) == kept
        assert again(answers, key) == kept
    assert counted.outcomes == ["new", "replayed", "replayed"] * 2
    assert answers.audit.count() == 2


def test_a_key_belongs_to_one_request(answers: Answers, counted: Counted) -> None:
    """Another body is refused, whether the first is decided or in hand; the first is not hurt."""
    claimed = claim(answers)
    with pytest.raises(KeyReused):
        claim(answers, body=BODY + b" ")
    decide(answers, claimed)
    with pytest.raises(KeyReused):
        claim(answers, body=b"")

    assert again(answers) == ANSWER
    assert counted.outcomes == ["new", "mismatch", "mismatch", "replayed"]


def test_who_comes_while_the_first_is_in_hand_has_to_come_again(
    answers: Answers, counted: Counted
) -> None:
    """To whatever server, until there is an answer."""
    claimed = claim(answers)
    other = replace(answers)
    with pytest.raises(KeyInUse):
        claim(other)
    decide(answers, claimed)

    assert again(other) == ANSWER
    assert counted.outcomes == ["new", "conflict", "replayed"]


def test_keys_of_other_calls_and_portfolios_are_other_keys(answers: Answers) -> None:
    """The same word means nothing there; nor does what only looks the same put together."""
    decide(answers, claim(answers))
    elsewhere = [
        run(replace(answers, portfolio="other").claim("/predict", "key-1", BODY, SECONDS)),
        run(answers.claim("/explain", "key-1", BODY, SECONDS)),
        run(answers.claim("/predict", "key-2", BODY, SECONDS)),
        run(answers.claim('/predict","key-1', "", BODY, SECONDS)),
    ]

    assert all(isinstance(claimed, Claim) for claimed in elsewhere)


def test_of_many_who_claim_at_once_one_decides(
    any_url: str, log: SqlAuditLog, clock: Clock
) -> None:
    """Fifty requests at two logs of one database, as two servers have them."""
    counted = Counted()

    async def once(answers: Answers) -> str:
        record = made()
        try:
            claimed = await answers.claim("/predict", "key-1", BODY, SECONDS)
        except KeyInUse:
            return "in use"
        if isinstance(claimed, Kept):
            return claimed.content.decode()
        kept = Kept(200, "text/plain", record.id.encode())
        await answers.audit.record([record], alongside=claimed.keep(kept))
        return record.id

    async def all_at_once(logs: list[SqlAuditLog]) -> list[str]:
        every = [Answers(one, SEALING, counted, "toy", KEPT_SECONDS, clock) for one in logs]
        return await asyncio.gather(*[once(every[i % 2]) for i in range(50)])

    with closing(SqlAuditLog(any_url, SEALING)) as second:
        told = run(all_at_once([log, second]))
    (decision,) = log.find()
    assert set(told) <= {"in use", decision.id}
    assert decision.id in told
    assert counted.outcomes.count("new") == 1


def test_two_servers_that_claim_in_different_order_do_not_wait_for_each_other(
    any_url: str, log: SqlAuditLog, clock: Clock
) -> None:
    """Many claims share a transaction, so that each has rows that the other wants."""

    async def all_at_once(logs: list[SqlAuditLog]) -> list[Claim | Kept | BaseException]:
        every = [Answers(one, SEALING, Counted(), "toy", KEPT_SECONDS, clock) for one in logs]
        keys = [f"key-{number}" for number in range(40)]
        claims = [
            answers.claim("/predict", key, BODY, SECONDS)
            for answers, order in zip(every, (keys, keys[::-1]), strict=True)
            for key in order
        ]
        return await asyncio.gather(*claims, return_exceptions=True)

    with closing(SqlAuditLog(any_url, SEALING)) as second:
        for _ in range(5):
            ended = run(all_at_once([log, second]))
            assert sum(isinstance(one, Claim) for one in ended) == 40
            assert sum(isinstance(one, KeyInUse) for one in ended) == 40
            clock.pass_seconds(SECONDS + MARGIN_SECONDS)


def test_a_claim_that_is_given_back_is_there_for_the_next(answers: Answers) -> None:
    """Also with another body: nothing was decided under the key."""
    claim(answers).release()
    claimed = claim(answers, body=b"{}")
    with pytest.raises(KeyInUse):
        claim(answers, body=b"{}")
    decide(answers, claimed)

    assert again(answers, body=b"{}") == ANSWER


def test_an_answer_is_not_given_back(answers: Answers) -> None:
    """Who was told too late that it is recorded may try."""
    claimed = claim(answers)
    decide(answers, claimed)
    claimed.release()

    assert again(answers) == ANSWER


def test_a_claim_runs_out_with_its_deadline(answers: Answers, clock: Clock) -> None:
    """A little later than that, and not before: who was killed holds it no longer."""
    claim(answers)
    clock.pass_seconds(SECONDS + MARGIN_SECONDS - 1e-6)
    with pytest.raises(KeyInUse):
        claim(answers)
    clock.pass_seconds(1e-6)

    decide(answers, claim(answers))
    assert again(answers) == ANSWER


def test_who_comes_to_record_after_all_records_nothing(answers: Answers, clock: Clock) -> None:
    """Its claim is another's, in hand or answered, or nobody's: there is one decision."""
    late = claim(answers)
    clock.pass_seconds(SECONDS + MARGIN_SECONDS)
    other = claim(answers)
    with pytest.raises(Conflict):
        decide(answers, late)
    decide(answers, other)
    with pytest.raises(Conflict):
        decide(answers, late)
    with pytest.raises(Conflict):
        decide(answers, other)
    late.release()

    assert again(answers) == ANSWER
    assert answers.audit.count() == 1


def test_others_in_the_transaction_are_recorded_all_the_same(
    answers: Answers, clock: Clock
) -> None:
    """One claim that has run out spoils nobody's decision or claim."""
    late = claim(answers, "late")
    clock.pass_seconds(SECONDS + MARGIN_SECONDS)
    claim(answers, "late")
    good = claim(answers, "good")

    async def all_at_once() -> tuple[object, ...]:
        return await asyncio.gather(
            answers.audit.record([made()], alongside=good.keep(ANSWER)),
            answers.audit.record([made()], alongside=late.keep(ANSWER)),
            answers.audit.record([made()]),
            answers.claim("/predict", "new", BODY, SECONDS),
            return_exceptions=True,
        )

    kept, refused, recorded, claimed = run(all_at_once())
    assert (kept, recorded) == (None, None)
    assert isinstance(refused, KeyInUse)
    assert isinstance(claimed, Claim)
    assert answers.audit.count() == 2
    assert again(answers, "good") == ANSWER


def test_an_answer_is_kept_for_its_time(answers: Answers, clock: Clock) -> None:
    """From when it was given; then the key is as new."""
    claimed = claim(answers)
    clock.pass_seconds(1.0)
    decide(answers, claimed)
    clock.pass_seconds(KEPT_SECONDS - 1e-6)
    assert again(answers) == ANSWER
    clock.pass_seconds(1e-6)

    claim(answers, body=b"another")


def test_what_has_run_out_is_deleted_by_who_comes_later(
    answers: Answers, clock: Clock, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then, a few at a time, the oldest first; what is still good stays."""
    monkeypatch.setattr(idempotency, "PURGE_EVERY", 2)
    monkeypatch.setattr(idempotency, "PURGED_MOST", 10)
    for number in range(14):
        decide(answers, claim(answers, f"key-{number}"))
        clock.pass_seconds(1.0)
    clock.pass_seconds(KEPT_SECONDS - 2.0)
    assert len(rows(any_url)) == 14

    for number, left in ((1, 14 - 10 + 1), (2, 14 - 10 + 2), (3, 1 + 3), (4, 1 + 4)):
        claim(answers, f"new-{number}")
        assert len(rows(any_url)) == left
    assert again(answers, "key-13") == ANSWER


def erase(log: SqlAuditLog, *ids: str) -> None:
    """Erase what records hold of a person."""
    erasure.erase(log, log, ids, by="auditor", reason="asked", progress=lambda *_: None)


def test_what_is_erased_is_answered_no_more(
    answers: Answers, log: SqlAuditLog, any_url: str
) -> None:
    """Its answer is gone from the database, nobody else's; the request is decided anew."""
    decided, other = decide(answers, claim(answers)), decide(answers, claim(answers, "other"))
    erase(log, decided)

    assert again(answers, "other") == ANSWER
    assert len(rows(any_url)) == 1
    assert decide(answers, claim(answers)) != decided
    assert again(answers) == ANSWER
    erase(log, decided)  # again: what was decided since is not it
    assert again(answers) == ANSWER
    assert log.get(other).withheld is None


def test_an_erasure_takes_no_later_answer_under_the_same_key(
    answers: Answers, log: SqlAuditLog, clock: Clock
) -> None:
    """The first one's had run out, and the key is another request's by now."""
    first = decide(answers, claim(answers))
    clock.pass_seconds(KEPT_SECONDS)
    in_hand = claim(answers, body=b"another")
    erase(log, first)
    decide(answers, in_hand)

    assert again(answers, body=b"another") == ANSWER


def test_what_retention_takes_is_answered_no_more(answers: Answers, log: SqlAuditLog) -> None:
    """However long answers are kept."""
    decide(answers, claim(answers), time=NOON - 1)
    decide(answers, claim(answers, "young"), time=NOON)
    terms = retention.Terms(25, NOON)
    taken = retention.take(log, log, terms, by="auditor", progress=lambda *_: None)

    assert taken == {"decision": 1}
    assert again(answers, "young") == ANSWER
    claim(answers)


def test_a_restart_changes_nothing(any_url: str, clock: Clock) -> None:
    """Claims and answers are in the database, and nowhere else."""
    with ExitStack() as stack:
        for step in range(3):
            log = stack.enter_context(closing(SqlAuditLog(any_url, Sealing([bytes(range(32))]))))
            answers = Answers(log, SEALING, Counted(), "toy", KEPT_SECONDS, clock)
            if step == 0:
                decide(answers, claim(answers))
                claim(answers, "in hand")
            else:
                assert again(answers) == ANSWER
                with pytest.raises(KeyInUse):
                    claim(answers, "in hand")
            log.close()


def test_keys_and_applications_cannot_be_read_or_guessed(answers: Answers, any_url: str) -> None:
    """Nothing of them is in the database, and the same body leaves other digests each time."""
    decide(answers, claim(answers, "applicant-4711"))
    decide(answers, claim(answers, "applicant-4712"))
    other = replace(answers, sealing=Sealing([NEW]))
    decide(other, claim(other, "applicant-4711"))

    stored = rows(any_url)
    assert len({row.key for row in stored}) == len({row.request for row in stored}) == 3
    for row in stored:
        assert len(row.key) == len(row.request) == 32
        for value in row:
            text = value if isinstance(value, bytes) else str(value).encode()
            assert not any(part in text for part in (b"4711", b"4712", b"age", b"APPROVE"))


def test_a_new_encryption_key_makes_no_second_decision(answers: Answers) -> None:
    """Put before the old one: what was claimed and answered under that one is found."""
    old = replace(answers, sealing=Sealing([OLD]))
    listed = replace(answers, sealing=Sealing([OLD, NEW]))
    both = replace(answers, sealing=Sealing([NEW, OLD]))
    decide(old, claim(old))
    in_hand = claim(old, "in hand")

    assert again(both) == ANSWER
    with pytest.raises(KeyReused):
        claim(both, body=b"another")
    with pytest.raises(KeyInUse):
        claim(both, "in hand")
    decide(old, in_hand)
    assert again(both, "in hand") == ANSWER
    decide(both, claim(both, "later"))
    assert again(listed, "later") == ANSWER


def test_an_answer_that_was_altered_is_not_given(answers: Answers, any_url: str) -> None:
    """Nor one that was taken from another row, nor one whose key is gone."""
    decide(answers, claim(answers))
    (good,) = [row.answer for row in rows(any_url)]
    decide(answers, claim(answers, "key-2"), Kept(200, "text/plain", b"of another"))
    (other,) = {row.answer for row in rows(any_url)} - {good}
    lost = b"gone" + good[4:]
    engine = sa.create_engine(sa.make_url(any_url))
    for answer in (other, b"", bytes(64), good[:-1], good[:-1] + bytes([good[-1] ^ 1]), lost):
        with engine.begin() as connection:
            connection.execute(sa.update(IDEMPOTENCY).values(answer=answer))
        with pytest.raises(EvidenceInvalid, match="idempotency key was altered"):
            again(answers)
    engine.dispose()


def test_who_cannot_claim_durably_does_not_decide(answers: Answers, log: SqlAuditLog) -> None:
    """And says so as for a record."""
    log.close()

    with pytest.raises(RecordingFailed):
        claim(answers)


def test_a_claim_that_nobody_waits_for_is_given_back(answers: Answers, any_url: str) -> None:
    """Cancelled in whatever moment, it is not in the way of the next."""

    async def impatient(turns: int) -> None:
        task = asyncio.ensure_future(answers.claim("/predict", "key-1", BODY, SECONDS))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for turns in range(4):
        run(impatient(turns))
        claim(answers).release()
    answers.audit.ping().result()
    assert rows(any_url) == []


@given(st.binary(max_size=200), st.integers(200, 599), st.text("abc/+-", min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_any_answer_comes_back_as_it_was(
    answers: Answers, content: bytes, status: int, media_type: str
) -> None:
    """Whatever bytes it is."""
    kept = Kept(status, media_type, content)
    claimed = claim(answers)
    decide(answers, claimed, kept)

    assert again(answers) == kept
    answers.clock.pass_seconds(2 * KEPT_SECONDS)  # type: ignore[attr-defined]
