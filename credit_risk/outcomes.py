"""Outcomes: what became of decisions, months later, put on record about them.

Each outcome, and each correction of one, is a record in the chain: of kind "outcome", ``about`` the
decision, with the body ``{"number": 2, "by": ...}``, ``number`` counting those about the same
decision, and ``{"defaulted": true, "observed": "2026-11-22"}`` sealed: it says what a person did,
so whoever erases the person's decision erases it. The table ``outcomes`` has the last one of each
decision beside what performance needs of it; it is written in the same transaction, proves nothing,
is held against the chain by `differences`, and made anew from it by `rebuild`.

Rows are judged one by one, so that a wrong one keeps no other from being recorded.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pydantic_core
import sqlalchemy as sa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from credit_risk import bodies
from credit_risk.audit.database import as_stored
from credit_risk.audit.queue import Difference
from credit_risk.audit.records import Record, instant, moment, read, sound
from credit_risk.audit.tables import OUTCOMES, RECORDS
from credit_risk.decisions import new_id
from credit_risk.errors import Conflict, EvidenceInvalid, FieldError, KeysInvalid, RecordNotFound
from credit_risk.schema import given_again, pointer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.audit.records import AuditLog
    from credit_risk.decisions import Call

AT_ONCE = 500
"""Outcomes recorded, compared or mended in one transaction."""
TRIES = 10
"""How often to look anew, where somebody records outcomes of the same decisions."""
_DAY = timedelta(days=1)

State = Literal[
    "recorded", "corrected", "unchanged", "duplicate", "unknown", "erased", "expired", "invalid"
]
STATES: dict[State, str] = {
    "recorded": "on record from now on",
    "corrected": "on record from now on; the one before stays there too",
    "unchanged": "is on record already, just so",
    "duplicate": "the decision is named more than once; none of these was recorded",
    "unknown": "no decision of this portfolio has the id",
    "erased": "the applicant's data were erased, and nothing is added to them",
    "expired": "retention has taken the decision",
    "invalid": "is no outcome; see errors",
}
"""What becomes of a row, and what that means."""
RECORDED: frozenset[State] = frozenset({"recorded", "corrected"})
_SAYS = {
    "missing": "Field required",
    "extra_forbidden": "Unknown field",
    "model_type": "Input should be an object",
}
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""Not of any digits that there are: `date.fromisoformat` takes few, and repeats what it refuses."""
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_O = OUTCOMES.c
_C = RECORDS.c


def _day(given: object) -> object:
    """Refuse what pydantic or Python would take for a day besides: numbers, weeks, times."""
    if not isinstance(given, str) or not re.fullmatch(_DATE, given):
        raise ValueError("give a day as 2026-11-22")
    return date.fromisoformat(given)


class Outcome(BaseModel):
    """Whether it came to a default, and on what day that, or that there was none, was observed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    decision_id: Annotated[str, Field(pattern=_UUID)]
    defaulted: bool
    observed: Annotated[date, BeforeValidator(_day)]


class Result(NamedTuple):
    """What became of a row. ``decision_id`` is None where it gives none that could be one."""

    decision_id: str | None
    state: State
    errors: tuple[FieldError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        told: dict[str, Any] = {"decision_id": self.decision_id, "state": self.state}
        if self.errors:
            told["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]
        return told


class _Row(NamedTuple):
    """A row of the table."""

    decision_id: str
    portfolio: str
    model_version: str
    decided: int
    decision: str
    band: str
    pd: float
    defaulted: int
    observed: str
    recorded: int
    version: int


class _Decided(NamedTuple):
    """What a row has of its decision."""

    id: str
    portfolio: str
    time: int
    model_version: str
    decision: str
    body: str


def add(
    log: SqlAuditLog,
    portfolio: str,
    rows: Sequence[object],
    call: Call,
    *,
    by: str | None = None,
) -> list[Result]:
    """Put outcomes on record; waits for the database.

    Args:
        log: where.
        portfolio: whose decisions they are of.
        rows: each an object as `Outcome` has it, or whatever came in its place.
        call: the request.
        by: who says so, where that is known.

    Returns:
        What became of each row, in order.

    Raises:
        RecordingFailed: the database fails; rows before may be on record, `AT_ONCE` at a time.
        Conflict: somebody kept recording outcomes of the same decisions.
    """
    read = [_read(row) for row in rows]
    times = Counter(row.decision_id for row in read)
    results: list[Result] = []
    for start in range(0, len(read), AT_ONCE):
        some = [
            Result(row.decision_id, "duplicate")
            if row.decision_id is not None and times[row.decision_id] > 1
            else row
            for row in read[start : start + AT_ONCE]
        ]
        results += _add_some(log, portfolio, some, call, by)
    return results


def history(records: SqlRecords, portfolio: str, decision_id: str) -> list[dict[str, Any]]:
    """Every outcome on record of a decision, the newest first, as JSON.

    Of one that was erased, or is sealed with a key that is not here, that there was one.

    Raises:
        RecordNotFound: there is no such decision.
        RecordExpired: retention has taken it.
        EvidenceInvalid: one of them is not as it was written.
    """
    decision = records.get(decision_id)
    if decision.kind != "decision" or decision.portfolio != portfolio:
        raise RecordNotFound("no decision of this portfolio has the id")
    found = records.find(about=decision_id, kind="outcome", limit=AT_ONCE)
    return [
        {
            "record": r.id,
            "time": moment(r.time),
            "decision_id": decision_id,
            **(r.personal or {"defaulted": None, "observed": None}),
            **r.body,
        }
        for r in sorted(sound(found), key=_number, reverse=True)
    ]


def _number(outcome: Record) -> int:
    with read(outcome.id, outcome.kind):
        return int(outcome.body["number"])


def listed(
    records: SqlRecords,
    portfolio: str,
    *,
    model_version: str | None = None,
    since: int | None = None,
    until: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The outcomes that hold, those of the newest decisions first, as JSON.

    Args:
        records: where.
        portfolio: whose decisions.
        model_version: only of decisions of this package.
        since: of decisions from this time on, microseconds since the epoch.
        until: of decisions before this time.
        limit: at most so many.

    Raises:
        RecordingFailed: the database fails.
    """
    conditions = [_O.portfolio == portfolio]
    if model_version is not None:
        conditions.append(_O.model_version == model_version)
    if since is not None:
        conditions.append(_O.decided >= since)
    if until is not None:
        conditions.append(_O.decided < until)
    query = sa.select(OUTCOMES).where(*conditions).order_by(_O.decided.desc(), _O.decision_id)
    with records.reading() as connection:
        found = connection.execute(query.limit(limit)).all()
    return [
        {
            "decision_id": row.decision_id,
            "decided": moment(row.decided),
            "model_version": row.model_version,
            "decision": row.decision,
            "risk_band": row.band,
            "probability_of_default": row.pd,
            "defaulted": bool(row.defaulted),
            "observed": row.observed,
            "recorded": moment(row.recorded),
            "corrections": row.version - 1,
        }
        for row in found
    ]


class Labelled(NamedTuple):
    """An application that was decided about, and what became of it.

    ``decided`` is in microseconds since the epoch, ``application`` None where it was erased, or is
    sealed with a key that is not here.
    """

    application: dict[str, Any] | None
    defaulted: bool
    decided: int


def labelled(
    records: SqlRecords, portfolio: str, *, since: int | None = None, until: int | None = None
) -> Iterator[Labelled]:
    """Every application with an outcome, in the order of decisions: what a model can learn of.

    Args:
        records: where; with keys.
        portfolio: whose decisions.
        since: of decisions from this time on, microseconds since the epoch.
        until: of decisions before this time.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: an application is not as it was recorded.
    """
    conditions = [_O.portfolio == portfolio]
    if since is not None:
        conditions.append(_O.decided >= since)
    if until is not None:
        conditions.append(_O.decided < until)
    wanted = sa.select(_O.decision_id, _O.defaulted, _O.decided).where(*conditions)
    with records.reading() as connection:
        rows = connection.execute(wanted.order_by(_O.decided, _O.decision_id)).all()
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        columns = sa.select(_C.id, _C.sealed, _C.data_key)
        with records.reading() as connection:
            found = connection.execute(columns.where(_C.id.in_([row.decision_id for row in some])))
            sealed = {row.id: (row.sealed, row.data_key) for row in found}
        for row in some:
            content, data_key = sealed.get(row.decision_id, (None, None))
            personal = None
            if content is not None and data_key is not None:
                personal = records.opened(row.decision_id, content, data_key)
            application = None if personal is None else personal["input"]
            yield Labelled(application, bool(row.defaulted), row.decided)


class _Read(NamedTuple):
    """A row as it was given: the outcome in it, or what is wrong with it."""

    decision_id: str | None
    outcome: Outcome | None
    errors: tuple[FieldError, ...] = ()


def _read(row: object) -> _Read:
    given = dict(row) if isinstance(row, dict | bodies.Repeating) else {}
    named = given.get("decision_id")
    decision_id = named if isinstance(named, str) and re.fullmatch(_UUID, named) else None
    if isinstance(row, bodies.Repeating):
        return _Read(decision_id, None, tuple(given_again(row.repeated)))
    try:
        return _Read(decision_id, Outcome.model_validate(row))
    except ValidationError as error:
        faults = tuple(
            FieldError(pointer(e["loc"]), _SAYS.get(e["type"], e["msg"].removeprefix(_VALUE)))
            for e in error.errors(include_url=False, include_input=False)
        )
        return _Read(decision_id, None, faults)


_VALUE = "Value error, "


def _add_some(
    log: SqlAuditLog,
    portfolio: str,
    rows: Sequence[_Read | Result],
    call: Call,
    by: str | None,
) -> list[Result]:
    outcomes = [row.outcome for row in rows if isinstance(row, _Read) and row.outcome is not None]
    for _ in range(TRIES):
        with log.reading() as connection:
            found = _found(connection, outcomes)
        judged: list[Result] = []
        after: dict[str, _Row] = {}
        records: list[Record] = []
        for row in rows:
            if isinstance(row, Result):
                judged.append(row)
            elif row.outcome is None:
                judged.append(Result(row.decision_id, "invalid", row.errors))
            else:
                decision, before = found.get(row.outcome.decision_id, (None, None))
                result = _judged(row.outcome, decision, before, portfolio, call.at)
                judged.append(result)
                if decision is not None and result.state in RECORDED:
                    number = 1 if before is None else before.version + 1
                    records.append(_record(row.outcome, decision, call, number, by))
                    after[decision.id] = _after(row.outcome, decision, call.at, number)
        if not records:
            return judged
        with suppress(Conflict):
            log.append(records, alongside=partial(_keep, after)).result()
            return judged
    raise Conflict("somebody recorded outcomes of the same decisions all the time: try again")


def _found(
    connection: sa.Connection, outcomes: Sequence[Outcome]
) -> dict[str, tuple[Any, _Row | None]]:
    """The record of each decision that there is, as a row, and its outcome so far."""
    ids = [outcome.decision_id for outcome in outcomes]
    columns = (_C.id, _C.kind, _C.portfolio, _C.time, _C.model_version, _C.policy_version)
    decided = sa.select(*columns, _C.decision, _C.body, _C.data_key).where(_C.id.in_(ids))
    before = sa.select(OUTCOMES).where(_O.decision_id.in_(ids))
    known = {row.decision_id: _Row(*row) for row in connection.execute(before)}
    return {row.id: (row, known.get(row.id)) for row in connection.execute(decided)}


def _judged(
    outcome: Outcome,
    decision: Any,  # noqa: ANN401 - a row
    before: _Row | None,
    portfolio: str,
    now: int,
) -> Result:
    one = outcome.decision_id
    refused = _refused(decision, portfolio)
    if refused is not None:
        return Result(one, refused)
    # A day is the lender's, and a moment is in UTC.
    if not _on(decision.time) - _DAY <= outcome.observed <= _on(now) + _DAY:
        when = "before the decision" if outcome.observed < _on(now) else "in the future"
        return Result(one, "invalid", (FieldError("/observed", f"The day is {when}"),))
    if before is None:
        return Result(one, "recorded")
    same = (before.defaulted, before.observed) == (outcome.defaulted, str(outcome.observed))
    return Result(one, "unchanged" if same else "corrected")


def _refused(decision: Any, portfolio: str) -> State | None:  # noqa: ANN401 - a row
    """Why a decision can have no outcome, None where it can."""
    if decision is None or decision.kind != "decision":
        return "unknown"
    if decision.body is None:
        return "expired"
    if decision.portfolio != portfolio:
        return "unknown"
    return "erased" if decision.data_key is None else None


def _on(at: int) -> date:
    return instant(at).date()


def _record(
    outcome: Outcome,
    decision: Any,  # noqa: ANN401 - a row
    call: Call,
    number: int,
    by: str | None,
) -> Record:
    return Record(
        id=new_id(),
        kind="outcome",
        time=call.at,
        portfolio=decision.portfolio,
        request_id=call.request_id,
        model_version=decision.model_version,
        policy_version=decision.policy_version,
        decision=None,
        status=200,
        body={"number": number, "by": by},
        personal={"defaulted": outcome.defaulted, "observed": str(outcome.observed)},
        about=decision.id,
    )


def _after(outcome: Outcome, decision: Any, now: int, number: int) -> _Row:  # noqa: ANN401 - a row
    with read(decision.id, "decision"):
        body = pydantic_core.from_json(decision.body)
        band, pd = body["risk_band"], body["probability_of_default"]
    return _Row(
        decision_id=decision.id,
        portfolio=decision.portfolio,
        model_version=decision.model_version,
        decided=decision.time,
        decision=decision.decision,
        band=band,
        pd=pd,
        defaulted=int(outcome.defaulted),
        observed=str(outcome.observed),
        recorded=now,
        version=number,
    )


def _keep(after: dict[str, _Row], connection: sa.Connection) -> None:
    """Write the table with the records, unless others were first."""
    ids = list(after)
    there = sa.select(sa.func.count()).where(_C.id.in_(ids), _C.data_key.is_not(None))
    versions = sa.select(_O.decision_id, _O.version).where(_O.decision_id.in_(ids))
    before = {row.decision_id: row.version for row in connection.execute(versions)}
    if connection.execute(there).scalar_one() != len(ids) or any(
        before.get(one, 0) + 1 != row.version for one, row in after.items()
    ):
        raise Conflict("somebody recorded outcomes of these decisions, or erased them, meanwhile")
    connection.execute(sa.delete(OUTCOMES).where(_O.decision_id.in_(ids)))
    connection.execute(sa.insert(OUTCOMES), [row._asdict() for row in after.values()])


def forget(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Take these decisions, and those that these records are about, out of the table."""
    about = sa.select(_C.about).where(_C.id.in_(ids), _C.kind == "outcome")
    gone = _O.decision_id.in_(ids) | _O.decision_id.in_(about)
    connection.execute(sa.delete(OUTCOMES).where(gone))


def differences(records: SqlRecords) -> Iterator[Difference]:
    """The decisions of whose outcomes the table says otherwise than the chain does.

    Args:
        records: the log, with keys; it may be written meanwhile.

    Raises:
        RecordingFailed: the database fails.
        KeysInvalid: an outcome is sealed with a key that is not here.
    """
    for ids in _doubtful(records.reading):
        left = ids
        for _ in range(TRIES):
            with records.reading() as connection:
                before = _rows(connection, left)
                wanted = _wanted(records, connection, left)
                since = _rows(connection, left)
            moved = {one for one in left if before.get(one) != since.get(one)}
            yield from _compared([one for one in left if one not in moved], before, wanted)
            left = sorted(moved)
            if not left:
                break


def rebuild(records: SqlRecords, log: AuditLog) -> Counter[str]:
    """Make the table what the chain says; how many rows were of each kind of `Difference`.

    Servers may write meanwhile. Stopped halfway, the same call again does the rest.

    Raises:
        RecordingFailed: the database fails.
        KeysInvalid: an outcome is sealed with a key that is not here.
    """
    done: Counter[str] = Counter()
    for ids in _doubtful(records.reading):
        with records.reading() as connection:
            _wanted(records, connection, ids)  # a key that is missing is found before writing
        mended: list[Difference] = []
        log.append((), alongside=partial(_mend, records, ids, mended)).result()
        done.update(difference.kind for difference in mended)
    return done


def _mend(
    records: SqlRecords, ids: Sequence[str], mended: list[Difference], connection: sa.Connection
) -> None:
    wanted = _wanted(records, connection, ids)
    # Set and not added to: it is run again when others in the transaction were undone.
    mended[:] = _compared(ids, _rows(connection, ids), wanted)
    for difference in mended:
        one = difference.decision_id
        connection.execute(sa.delete(OUTCOMES).where(_O.decision_id == one))
        if one in wanted:
            connection.execute(sa.insert(OUTCOMES).values(wanted[one]._asdict()))


def _doubtful(reading: Reading) -> Iterator[list[str]]:
    """The decisions that have an outcome, in the chain or in the table, some at a time."""
    outcomes = (_C.kind == "outcome", _C.about.is_not(None), _C.body.is_not(None))
    alone = (~sa.exists().where(*outcomes, _C.about == _O.decision_id),)
    for column, conditions in ((_C.about, outcomes), (_O.decision_id, alone)):
        last = ""
        while True:
            page = sa.select(column).distinct().where(*conditions, column > last)
            with reading() as connection:
                found = as_stored(connection, page.order_by(column).limit(AT_ONCE))
            ids = [row[0] for row in found]
            if not ids:
                break
            yield [one for one in ids if re.fullmatch(_UUID, one)]
            last = ids[-1]


def _rows(connection: sa.Connection, ids: Sequence[str]) -> dict[str, _Row]:
    found = as_stored(connection, sa.select(OUTCOMES).where(_O.decision_id.in_(ids)))
    return {row[0]: _Row(*row) for row in found}


def _wanted(records: SqlRecords, connection: sa.Connection, ids: Sequence[str]) -> dict[str, _Row]:
    """The rows that the chain says these decisions have."""
    decided = sa.select(_C.id, _C.portfolio, _C.time, _C.model_version, _C.decision, _C.body).where(
        _C.id.in_(ids), _C.kind == "decision", _C.body.is_not(None)
    )
    said = (
        sa.select(_C.id, _C.about, _C.time, _C.body, _C.sealed, _C.data_key)
        .where(_C.about.in_(ids), _C.kind == "outcome", _C.body.is_not(None))
        .order_by(_C.sequence)
    )
    decisions = {row[0]: _Decided(*row) for row in as_stored(connection, decided)}
    last = {row[1]: row for row in as_stored(connection, said)}
    wanted: dict[str, _Row] = {}
    for record_id, about, time, body, sealed, data_key in last.values():
        # What is none, or about no decision, is the chain's business; of an erased one none is.
        with suppress(ValueError, LookupError, TypeError, EvidenceInvalid):
            if not isinstance(sealed, bytes) or not isinstance(data_key, bytes):
                continue
            personal = records.opened(record_id, sealed, data_key)
            if personal is None:
                told = "outcomes are held against the records with the keys that seal them"
                raise KeysInvalid(f"{told}, and one is not given")
            outcome = Outcome(decision_id=about, **personal)
            number = pydantic_core.from_json(body)["number"]
            wanted[about] = _after(outcome, decisions[about], time, number)
    return wanted


def _compared(
    ids: Iterable[str], rows: dict[str, _Row], wanted: dict[str, _Row]
) -> Iterator[Difference]:
    for one in ids:
        row, want = rows.get(one), wanted.get(one)
        if row is None and want is not None:
            yield Difference("missing", one, "has an outcome, and none in the table")
        elif row is not None and want is None:
            yield Difference("extra", one, "has an outcome in the table, and none on record")
        elif row is not None and want is not None and row != want:
            names = [name for name in _Row._fields if getattr(row, name) != getattr(want, name)]
            yield Difference("different", one, f"has another {', '.join(names)} in the table")
