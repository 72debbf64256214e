"""Oversight: what is asked about a model in use, answered from what is on record.

Drift, performance, fairness, and whether it is time to think of retraining; each of a window of
recorded decisions of one package, and drift also of applicants that somebody gives. The statistics
are in modules of their own; here is what they are of. Nothing is written.

All of it takes long by the measure of a decision: it is for processes that decide nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from credit_risk import bodies, documents, fairness, groups, performance, retraining, windows
from credit_risk.audit.records import instant, moment
from credit_risk.audit.tables import GROUPS, OUTCOMES, POPULATIONS, RECORDS
from credit_risk.drift import Reference
from credit_risk.errors import DataInvalid, FieldError, RequestInvalid
from credit_risk.model import probability
from credit_risk.schema import UNSEEN, given_again, pointer
from credit_risk.windows import DAY, HOUR, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlRecords
    from credit_risk.drift import Counts, Drift
    from credit_risk.package import ModelPackage
    from credit_risk.performance import Figures, Performance
    from credit_risk.retraining import MonitoringPolicy
    from credit_risk.schema import FieldSpec, Schema

    Floats = npt.NDArray[np.float64]

SAMPLE_ROWS_MAX = 10_000
"""Applicants that somebody may give to compare."""
RECENT_DAYS = 7
"""Length of the windows that a check of whether to retrain compares."""
WEEKS = 8
"""How many of them, one after another."""
GROUPS_MOST = 50
"""More groups than this are no groups: an attribute has few values."""
_FAULTS_MOST = 100
_EARLIEST = 1_666_569_600_000_000
"""2022-10-24, when Python 3.11 came out, microseconds since the epoch: no package decided before.

A record from before is of a clock that was not set, which stands at 1970 or a little later.
"""

_C = RECORDS.c
_P = POPULATIONS.c
_O = OUTCOMES.c
_G = GROUPS.c


@dataclass(frozen=True)
class Oversight:
    """Answers about one package, with the records it was given; see the module's text.

    Methods raise `RecordingFailed` where the database fails, and `EvidenceInvalid` where applicants
    were counted on another grid, see `credit_risk.windows.forget`.
    """

    records: SqlRecords
    package: ModelPackage

    @cached_property
    def reference(self) -> Reference:
        """What applicants are compared with."""
        return Reference.of(self.package)

    def drift(self, window: Window) -> dict[str, Any]:
        """How far the applicants of a window are from the package's reference, as JSON.

        Decisions count that were counted by then, see `credit_risk.windows.count`.
        """
        portfolio, version = self.package.portfolio, self.package.version
        made = windows.versions(self.records, portfolio, window)
        found = self._drift(window)
        decisions = made.pop(version, 0)
        return {
            **self._about(window),
            "decisions": decisions,
            "not_counted": decisions - found.rows,
            "other_versions": made,
            **found.model_dump(mode="json"),
        }

    def drift_of(self, rows: Floats) -> dict[str, Any]:
        """How far applicants that somebody gives are from the package's reference, as JSON.

        Args:
            rows: shape (n, fields), see `sample`.
        """
        valid = allowed(self.package.schema, rows)
        pds = np.full(len(rows), np.nan)
        if valid.any():
            pds[valid] = probability(self.package.model.log_odds(rows[valid]))
        found = self.reference.compare(self.reference.count(rows, pds))
        return {
            **self._about(None),
            "decisions": None,
            "not_counted": 0,
            "other_versions": {},
            **found.model_dump(mode="json"),
        }

    def performance(self, window: Window, now: int, months: int) -> dict[str, Any]:
        """How right PDs were, as outcomes show, and what is expected without them, as JSON.

        Args:
            window: when the decisions were made.
            now: when it is asked, microseconds since the epoch.
            months: the outcome period, see `credit_risk.retraining.MonitoringPolicy`.
        """
        found = self._performance(window, now, months)
        expected = self.expected(window)
        return {
            **self._about(window),
            **found.model_dump(mode="json"),
            "expected_of_all": None if expected is None else expected.model_dump(mode="json"),
            "development_auc": self._development_auc,
        }

    def fairness(
        self, window: Window, sealing: Sealing, attribute: str, reference: str | None = None
    ) -> dict[str, Any]:
        """Approvals and scores by groups that somebody supplied, as JSON.

        Args:
            window: when the decisions were made; see `credit_risk.windows.apart`.
            sealing: what opens groups.
            attribute: what the groups are by.
            reference: the group to compare with; None is the largest.

        Raises:
            RequestInvalid: nobody is grouped by the attribute; there is no group of the reference's
                name; or there are too many.
            EvidenceInvalid: a group was altered.
        """
        window = windows.apart(self.records, self.package.portfolio, self.package.version, window)
        of = (_G.portfolio == self.package.portfolio, _G.attribute == attribute)
        of_window = (_G.decided >= window.since, _G.decided < window.until)
        known = sa.select(_G.decision_id, _G.decision, _G.pd, _G.sealed).where(
            *of, *of_window, _G.model_version == self.package.version
        )
        with self.records.reading() as connection:
            rows = connection.execute(known).all()
        if not rows:
            self._check_attribute(attribute)
        closed = {row.about: row.closed for row in self._closings(window)}
        names: dict[str, int] = {}
        codes, approved, pds = [], [], []
        for row in rows:
            final = closed.get(row.decision_id, row.decision)
            group = groups.opened(sealing, row.decision_id, attribute, row.sealed)
            if final == "REVIEW" or group is None:
                continue
            codes.append(names.setdefault(group, len(names)))
            approved.append(final == "APPROVE")
            pds.append(row.pd)
            if len(names) > GROUPS_MOST:
                told = f"More than {GROUPS_MOST} groups: an attribute has few values"
                raise RequestInvalid((FieldError("/attribute", told),))
        try:
            found = fairness.measure(
                np.array(codes, dtype=np.int64),
                list(names),
                np.array(approved, dtype=np.bool_),
                np.array(pds),
                self.package.policy.cut_off,
                attribute=attribute,
                reference=reference,
            )
        except DataInvalid:
            told = f"None of the groups with {fairness.LEAST_ROWS} applicants or more"
            raise RequestInvalid((FieldError("/reference", told),)) from None
        made, waiting = self._made(window)
        # Fewer only if some that have a group were not counted: another process is at it.
        unknown = max(made - waiting - found.rows, 0)
        return {
            **self._about(window),
            "decisions": made,
            **found.model_dump(mode="json"),
            "rows": found.rows + unknown,
            "unknown": unknown,
        }

    def retraining(self, policy: MonitoringPolicy, now: int) -> dict[str, Any]:
        """Whether it is time to think of retraining, and what that rests on, as JSON."""
        weeks = [
            Window(end - RECENT_DAYS * DAY, end)
            for end in range(
                now // HOUR * HOUR + HOUR - (WEEKS - 1) * RECENT_DAYS * DAY,
                now // HOUR * HOUR + 2 * HOUR,
                RECENT_DAYS * DAY,
            )
        ]
        history = [self._drift(window) for window in weeks]
        recent = Window(weeks[0].since, weeks[-1].until)
        mature = _months_before(now, policy.outcome_months)
        past = Window(mature - windows.DAYS_MOST * DAY, mature)
        first = self._first()
        evidence = retraining.Evidence(
            drift=history[-1],
            history=[found.verdict for found in history],
            performance=self._performance(past, now, policy.outcome_months),
            expected=self.expected(recent),
            development_auc=self._development_auc,
            age_days=None if first is None else (now - first) // DAY,
        )
        checked = retraining.check(policy, evidence)
        return {
            **self._about(weeks[-1]),
            "monitoring_policy": {
                "version": policy.version,
                "sha256": documents.digest(policy),
            },
            **checked.model_dump(mode="json"),
            "windows": [
                {"from": moment(window.since), "to": moment(window.until)}
                | {"rows": found.rows, "verdict": found.verdict}
                for window, found in zip(weeks, history, strict=True)
            ],
        }

    def _check_attribute(self, attribute: str) -> None:
        """Refuse an attribute by which nobody is grouped, whenever decided about.

        Raises:
            RequestInvalid: it is one.
        """
        known = groups.attributes(self.records, self.package.portfolio)
        if attribute not in known:
            there = f"there are some by {', '.join(known)}" if known else "nor are there any others"
            told = f"No groups by it are on record; {there}"
            raise RequestInvalid((FieldError("/attribute", told),))

    @property
    def _development_auc(self) -> float | None:
        found: float | None = self.package.metrics.get("hold_out", {}).get("roc_auc")
        return found

    def _about(self, window: Window | None) -> dict[str, Any]:
        return {
            "portfolio": self.package.portfolio,
            "model_version": self.package.version,
            "from": None if window is None else moment(window.since),
            "to": None if window is None else moment(window.until),
        }

    def _counts(self, window: Window) -> Counts:
        counted = windows.hours(self.records, self.package.portfolio, self.package.version, window)
        return windows.total(self.reference, counted)

    def _drift(self, window: Window) -> Drift:
        return self.reference.compare(self._counts(window))

    def expected(self, window: Window) -> Figures | None:
        """What PDs let expect of all applicants of a window, whatever becomes of them."""
        return performance.estimate(*self.reference.scores(self._counts(window)))

    def _performance(self, window: Window, now: int, months: int) -> Performance:
        columns = (_O.pd, _O.defaulted, _O.decided, _O.observed, _O.decision_id, _O.decision)
        decided = sa.select(*columns).where(
            *(_O.portfolio == self.package.portfolio, _O.model_version == self.package.version),
            *(_O.decided >= window.since, _O.decided < window.until),
        )
        with self.records.reading() as connection:
            rows = connection.execute(decided.order_by(_O.decided, _O.decision_id)).all()
        known_of = zip(*rows, strict=True) if rows else ((),) * len(columns)
        pds, defaulted, decided_at, observed, ids, made = known_of
        closed = {row.about: row.closed for row in self._closings(window)}
        final = [closed.get(one, decision) for one, decision in zip(ids, made, strict=True)]
        known = performance.Outcomes(
            pds=np.array(pds, dtype=np.float64),
            defaulted=np.array(defaulted, dtype=np.int64),
            decided=np.array(decided_at, dtype="datetime64[us]").astype("datetime64[D]"),
            observed=np.array(observed, dtype="datetime64[D]"),
            accepted=np.array([decision == "APPROVE" for decision in final], dtype=np.bool_),
        )
        return performance.measure(
            known,
            self._accepted(window),
            self.package.policy,
            today=np.datetime64(instant(now).date(), "D"),
            months=months,
        )

    def _accepted(self, window: Window) -> dict[str, int]:
        """Applications accepted by month of decision, by the server or in the end by people."""
        accepted: Counter[str] = Counter()
        approved = sa.select(_P.hour, _P.approved).where(
            *(_P.portfolio == self.package.portfolio, _P.model_version == self.package.version),
            *(_P.hour >= window.since, _P.hour < window.until, _P.approved > 0),
        )
        with self.records.reading() as connection:
            for hour, number in connection.execute(approved):
                accepted[_month(hour)] += number
        for row in self._closings(window):
            accepted[_month(row.time)] += (row.closed == "APPROVE") - (row.made == "APPROVE")
        return dict(accepted)

    def _made(self, window: Window) -> tuple[int, int]:
        """How many decisions are counted, and how many of them wait for people."""
        made = sa.select(sa.func.sum(_P.rows), sa.func.sum(_P.referred)).where(
            *(_P.portfolio == self.package.portfolio, _P.model_version == self.package.version),
            *(_P.hour >= window.since, _P.hour < window.until),
        )
        with self.records.reading() as connection:
            rows, referred = connection.execute(made).one()
        closed = sum(row.made == "REVIEW" for row in self._closings(window))
        return int(rows or 0), max(int(referred or 0) - closed, 0)

    def _closings(self, window: Window) -> Sequence[Any]:
        """How people closed reviews of decisions of the window: about, time, made, closed."""
        closing = RECORDS.alias("closing").c
        of = (closing.portfolio == self.package.portfolio, closing.kind == "review")
        ended = (closing.decision.is_not(None), closing.time >= window.since)
        made = (_C.id == closing.about, _C.model_version == self.package.version)
        within = (_C.time >= window.since, _C.time < window.until)
        found = sa.select(
            closing.about, _C.time, _C.decision.label("made"), closing.decision.label("closed")
        ).where(*of, *ended, *made, *within)
        with self.records.reading() as connection:
            return connection.execute(found).all()

    def _first(self) -> int | None:
        """When the package first decided, or was started with, by clocks that can be right."""
        first = sa.select(sa.func.min(_C.time)).where(
            *(_C.portfolio == self.package.portfolio, _C.model_version == self.package.version),
            _C.time >= _EARLIEST,
        )
        with self.records.reading() as connection:
            at: int | None = connection.execute(first).scalar_one()
        return at


def posted(document: object, version: str) -> tuple[object, str]:
    """The applicants that somebody gives, and the version to compare them with.

    Args:
        document: ``{"applications": [...], "model_version": ...}``, the latter if it is another.
        version: that of the package which decides.

    Raises:
        RequestInvalid: it is no such document.
    """
    if isinstance(document, bodies.Repeating):
        raise RequestInvalid(tuple(given_again(document.repeated)))
    if not isinstance(document, dict):
        raise RequestInvalid((FieldError("", "Input should be an object"),))
    names = ("applications", "model_version")
    faults = [FieldError(pointer((n,)), "Unknown field") for n in document if n not in names]
    if "applications" not in document:
        faults.append(FieldError("/applications", "Field required"))
    wanted = document.get("model_version", version)
    if not isinstance(wanted, str) or not re.fullmatch("[0-9a-f]{12}", wanted):
        faults.append(FieldError("/model_version", "Input should be 12 hexadecimal digits"))
        wanted = version
    if faults:
        raise RequestInvalid(tuple(faults[:_FAULTS_MOST]))
    return document.get("applications"), wanted


def sample(schema: Schema, rows: object) -> Floats:
    """Applicants that somebody gives, as numbers: see `Schema.matrix`.

    Values need not be allowed: those out of range, and categories that are not listed, are what is
    looked for. Fields left out are missing.

    Args:
        schema: whose fields.
        rows: a list of objects.

    Returns:
        Shape (n, fields).

    Raises:
        RequestInvalid: none or too many, unknown fields, or values of another type.
    """
    if not isinstance(rows, list):
        raise RequestInvalid((FieldError("/applications", "Input should be an array"),))
    if not 1 <= len(rows) <= SAMPLE_ROWS_MAX:
        told = f"Input should hold 1 to {SAMPLE_ROWS_MAX} rows"
        raise RequestInvalid((FieldError("/applications", told),))
    faults: list[FieldError] = []
    matrix = np.full((len(rows), len(schema.fields)), np.nan)
    specs = {spec.name: (place, spec) for place, spec in enumerate(schema.fields)}
    for number, row in enumerate(rows):
        faults += islice(_read(row, specs, matrix[number], number), _FAULTS_MOST)
        if len(faults) >= _FAULTS_MOST:
            break
    if faults:
        raise RequestInvalid(tuple(faults[:_FAULTS_MOST]))
    return matrix


def allowed(schema: Schema, rows: Floats) -> npt.NDArray[np.bool_]:
    """Which applicants, shape (n, fields), the schema allows; shape (n,). The others have no PD."""
    valid = np.ones(len(rows), dtype=np.bool_)
    for column, spec in zip(rows.T, schema.fields, strict=True):
        missing = np.isnan(column)
        if spec.is_category:
            inside = column >= 0
        else:
            inside = (column >= (spec.minimum or 0.0)) & (column <= (spec.maximum or 0.0))
            if spec.type == "integer":
                inside &= column == np.round(column)
        valid &= (missing & spec.nullable) | (~missing & inside)
    return valid


def _read(
    row: object, specs: dict[str, tuple[int, FieldSpec]], into: Floats, number: int
) -> Iterator[FieldError]:
    """Read an applicant into a row of the matrix; what is wrong with it."""
    if not isinstance(row, dict):
        again = isinstance(row, bodies.Repeating)
        told = "A field is given more than once" if again else "Input should be an object"
        yield _fault(number, (), told)
        return
    for name, value in row.items():
        if name not in specs:
            yield _fault(number, (name,), "Unknown field")
            continue
        place, spec = specs[name]
        code = _code(spec, value)
        if code is None:
            kind = "a string" if spec.is_category else "a finite number"
            yield _fault(number, (name,), f"Input should be {kind} or null")
        else:
            into[place] = code


def _code(spec: FieldSpec, value: object) -> float | None:
    """A value as a number, None where it is of another type."""
    if value is None:
        return np.nan
    if spec.is_category:
        if not isinstance(value, str):
            return None
        return float(spec.categories.index(value)) if value in spec.categories else UNSEEN
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    # JSON has neither; its parser takes them, and a number too large for one of them.
    return number if math.isfinite(number) else None


def _fault(row: int, place: Sequence[str], detail: str) -> FieldError:
    return FieldError(pointer(("applications", row, *place)), detail)


def _months_before(now: int, months: int) -> int:
    """When the month began that is so many before that of a time: it is over for so long."""
    month = np.datetime64(instant(now).date(), "M") - months
    return int(month.astype("datetime64[us]").astype(np.int64))


def _month(at: int) -> str:
    return instant(at).strftime("%Y-%m")
