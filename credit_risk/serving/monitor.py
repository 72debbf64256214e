"""The calls about the model in use: outcomes, drift, performance, fairness, and retraining.

What takes long is asked of a process beside this one (`monitoring.analyst`); here requests are
read, what was counted is written, and answers are given. A body of applicants is not even parsed
here: reading ten thousand of them takes longer than deciding a hundred.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from credit_risk import checks, outcomes, windows
from credit_risk.audit.records import microseconds
from credit_risk.decisions import within
from credit_risk.errors import (
    Conflict,
    FieldError,
    MonitoringFailed,
    PackageNotFound,
    RecordingFailed,
    RequestInvalid,
)
from credit_risk.groups import ATTRIBUTE
from credit_risk.schema import pointer
from credit_risk.serving.asking import (
    Taken,
    Time,
    answered,
    call_of,
    checked,
    id_of,
    logger,
    parsed,
    query,
)
from credit_risk.serving.cases import Note, Reviewer
from credit_risk.serving.responses import read_json, read_nothing
from credit_risk.windows import PERIOD
from monitoring.analyst import Packages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.audit.records import RecordKind
    from credit_risk.serving.activation import ActivePackage
    from credit_risk.settings import Settings
    from credit_risk.windows import Batch, Window

    Answer = dict[str, Any]

OUTCOMES_MAX = 1_000
"""Outcomes in one call."""
OUTCOMES_BYTES_MAX = 262_144
SAMPLE_BYTES_MAX = 16_777_216
"""Ten thousand applicants of a portfolio with many fields."""
_WINDOW_BYTES_MAX = 4_096
"""A longer body is no window, and is not parsed here."""
_LONGEST = f"{windows.DAYS_MOST}d"

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Attribute = Annotated[str, Field(pattern=ATTRIBUTE)]


def _period(given: object) -> object:
    """Say what a period is, rather than its pattern, which is described."""
    if isinstance(given, str) and not re.fullmatch(PERIOD, given):
        raise ValueError(windows.NO_PERIOD)
    return given


class WindowQuery(Taken):
    """Which decisions to look at: a period up to now, or from one time to another."""

    window: Annotated[str, Field(pattern=PERIOD), BeforeValidator(_period)] | None = None
    begin: Annotated[Time | None, Field(alias="from")] = None
    end: Annotated[Time | None, Field(alias="to")] = None
    model_version: Version | None = None

    def hours(self, now: int, usual: str | None = None) -> Window:
        """The window that is meant; ``usual`` is the period of one that is not given.

        Raises:
            RequestInvalid: none is given, or two, or none that can be, or one in the future.
        """
        begin, end = microseconds(self.begin), microseconds(self.end)
        period = self.window
        if period is None and begin is None and end is None:
            period = usual
        if (period is None) == (begin is None) or (period is not None and end is not None):
            raise RequestInvalid((FieldError("/window", "Give either window, or from and to"),))
        if begin is not None and begin > now:
            raise RequestInvalid((FieldError("/from", "The window begins in the future"),))
        try:
            if period is not None:
                return windows.last(period, now)
            return windows.between(begin or 0, now if end is None else end)
        except ValueError as error:
            place = "/from" if period is None else "/window"
            raise RequestInvalid((FieldError(place, str(error).capitalize()),)) from None


class FairnessQuery(WindowQuery):
    """Whose groups to compare, and with which."""

    attribute: Attribute
    reference: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class JudgementBody(Taken):
    """What a person decides on a check, and why."""

    reviewer: Reviewer
    decision: Literal["RETRAIN", "KEEP"]
    note: Note


class Analyst(Protocol):
    """Who works out what takes long; see `monitoring.analyst.Analyst`."""

    async def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the question has it
        """The answer to a question."""


class MonitorObserver(Protocol):
    """Who counts. Called on the request path, so it must be quick and never fail."""

    def recorded(self, kind: RecordKind, number: int) -> None:
        """So many records were made durable."""


class Monitor:
    """The handlers.

    ``folders`` gives the folder of each package that is installed, by version.
    """

    def __init__(  # noqa: PLR0917 - collaborators, each of a type of its own
        self,
        settings: Settings,
        audit: SqlAuditLog,
        active: ActivePackage,
        analyst: Analyst,
        folders: Callable[[], dict[str, str]],
        observer: MonitorObserver,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._active = active
        self._analyst = analyst
        self._folders = folders
        self._observer = observer

    async def outcomes(self, request: Request) -> Response:
        """POST /outcomes: what became of decisions."""
        return await self._recorded(request, self._outcomes(request))

    async def drift(self, request: Request) -> Response:
        """POST /monitor/drift: whether applicants are still those of the reference."""
        return await self._worked_out(request, self._drift(request))

    async def performance(self, request: Request) -> Response:
        """GET /monitor/performance: how right PDs were."""

        async def work() -> Answer:
            asked = query(WindowQuery, request)
            now = call_of(request).at
            window = asked.hours(now, _LONGEST)
            packages = await self._counted(asked.model_version)
            return await self._ask("performance", packages, window, now)

        return await self._worked_out(request, work())

    async def fairness(self, request: Request) -> Response:
        """GET /monitor/fairness: approvals and scores by groups."""

        async def work() -> Answer:
            asked = query(FairnessQuery, request)
            window = asked.hours(call_of(request).at, _LONGEST)
            packages = await self._counted(asked.model_version)
            return await self._ask("fairness", packages, window, asked.attribute, asked.reference)

        return await self._worked_out(request, work())

    async def challenger(self, request: Request) -> Response:
        """GET /monitor/challenger: the challenger beside the package that decides."""

        async def work() -> Answer:
            asked = query(WindowQuery, request)
            given = (asked.window, asked.begin, asked.end) != (None, None, None)
            window = asked.hours(call_of(request).at) if given else None
            champion, challenge = self._active.current.version, self._active.challenge
            version = asked.model_version
            if version == champion:
                told = "It decides, and there is nothing beside it: name a package that does not"
                raise RequestInvalid((FieldError("/model_version", told),))
            if version is None and challenge is not None and challenge.version != champion:
                version = challenge.version
            if version is None:
                told = "No challenge is in force: name the package to compare"
                raise RequestInvalid((FieldError("/model_version", told),))
            return await self._ask("challenger", self._packages(version), champion, window)

        return await self._worked_out(request, work())

    async def check(self, request: Request) -> Response:
        """POST /monitor/retraining-check: whether it is time to think of it, on record."""

        async def work() -> Answer:
            await read_nothing(request, self._settings.request_seconds)
            call, package = call_of(request), self._active.current
            packages = await self._counted(package.version)
            found = await self._ask("retraining", packages, call.at)
            made = await checks.record(self._audit, package, found, call)
            self._observer.recorded("retraining-check", 1)
            return made

        return await self._recorded(request, work())

    async def checked(self, request: Request) -> Response:
        """GET /monitor/retraining-check/{id}: a check, and what was decided on it."""
        work = asyncio.to_thread(self._check, id_of(request))
        return await self._worked_out(request, work)

    async def judge(self, request: Request) -> Response:
        """POST /monitor/retraining-check/{id}/decision: what a person decides on it."""

        async def work() -> Answer:
            content = await read_json(request, OUTCOMES_BYTES_MAX, self._settings.request_seconds)
            body = checked(JudgementBody, parsed(content))
            check = await asyncio.to_thread(self._check, id_of(request))
            judgement = checks.Judgement(body.reviewer, body.decision, body.note)
            made = await checks.decide(self._audit, check, judgement, call_of(request))
            self._observer.recorded("retraining-decision", 1)
            return made

        return await self._recorded(request, work())

    async def _outcomes(self, request: Request) -> Answer:
        content = await read_json(request, OUTCOMES_BYTES_MAX, self._settings.request_seconds)
        rows = _rows(parsed(content))
        call = call_of(request)
        portfolio = self._settings.portfolio
        try:
            results = await asyncio.to_thread(outcomes.add, self._audit, portfolio, rows, call)
        except Conflict as error:
            raise RecordingFailed("outcomes of the same decisions came all the time") from error
        recorded = sum(result.state in outcomes.RECORDED for result in results)
        if recorded:
            self._observer.recorded("outcome", recorded)
        return {
            "rows": len(results),
            "recorded": recorded,
            "results": [result.to_json() for result in results],
        }

    async def _drift(self, request: Request) -> Answer:
        content = await read_json(request, SAMPLE_BYTES_MAX, self._settings.request_seconds)
        if len(content) > _WINDOW_BYTES_MAX:
            return await self._ask("drift_of", self._packages(None), content)
        document = parsed(content)
        if "applications" in document:
            return await self._ask("drift_of", self._packages(None), content)
        nulls = [name for name, value in document.items() if value is None]
        if nulls:
            raise RequestInvalid(tuple(FieldError(pointer((n,)), "Is null") for n in nulls))
        asked = checked(WindowQuery, document)
        window = asked.hours(call_of(request).at)
        packages = await self._counted(asked.model_version)
        return await self._ask("drift", packages, window)

    def _check(self, check_id: str) -> Answer:
        return checks.shown(self._audit, self._settings.portfolio, check_id)

    def _packages(self, version: str | None) -> Packages:
        """What the analyst is told of the packages.

        Raises:
            PackageNotFound: none of that version is installed.
        """
        current = self._active.current
        folders = {**self._folders(), current.version: str(current.path)}
        if version is not None and version not in folders:
            raise PackageNotFound("no package of that version is installed")
        return Packages(self._settings.portfolio, version or current.version, folders)

    async def _counted(self, version: str | None) -> Packages:
        """The same, once every decision on record by now is counted."""
        packages = self._packages(version)
        done = False
        while not done:
            batch: Batch = await self._analyst.ask("count", packages)
            with suppress(Conflict):  # a process of another worker was first, and goes on
                await self._audit.record((), alongside=windows.keep(batch))
                done = batch.done
        return packages

    async def _ask(self, name: str, *arguments: object) -> Answer:
        answer: Answer = await self._analyst.ask(name, *arguments)
        return answer

    async def _recorded(self, request: Request, work: Awaitable[Answer]) -> Response:
        return await self._answered(request, work, "record-in-doubt", "record-in-doubt")

    async def _worked_out(self, request: Request, work: Awaitable[Answer]) -> Response:
        return await self._answered(request, work, "records-unavailable", "deadline-exceeded")

    async def _answered(
        self, request: Request, work: Awaitable[Answer], unrecorded: str, late: str
    ) -> Response:
        in_time = within(self._settings.batch_deadline_seconds, self._told(request, work))
        return await answered(request, in_time, unrecorded=unrecorded, late=late)

    @staticmethod
    async def _told(request: Request, work: Awaitable[Answer]) -> Answer:
        """The answer; that there was none is logged."""
        try:
            return await work
        except MonitoringFailed:
            logger.exception("request %s failed", call_of(request).request_id)
            raise


def _rows(document: dict[str, Any]) -> list[object]:
    """The outcomes in a body, one or many.

    Raises:
        RequestInvalid: it holds none, or too many, or something else.
    """
    if "outcomes" not in document:
        return [document]
    rows = document["outcomes"]
    unknown = [name for name in document if name != "outcomes"]
    faults = [FieldError(pointer((name,)), "Unknown field") for name in unknown]
    if not isinstance(rows, list):
        faults.append(FieldError("/outcomes", "Input should be an array"))
    elif not 1 <= len(rows) <= OUTCOMES_MAX:
        faults.append(FieldError("/outcomes", f"Input should hold 1 to {OUTCOMES_MAX} rows"))
    if faults or not isinstance(rows, list):
        raise RequestInvalid(tuple(faults))
    return rows
