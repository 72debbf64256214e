"""The calls about decisions on record. Each is a few lines over the core.

Nothing about them reaches a log, a metric or a trace but the id of the decision.
"""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from credit_risk import notices
from credit_risk.errors import (
    CreditRiskError,
    DeadlineExceeded,
    RecordingFailed,
    RecordNotFound,
)
from credit_risk.serving import problems
from credit_risk.serving.responses import Rejected, json_answer, problem_answer, read_nothing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from credit_risk.audit.records import AuditLog, Record
    from credit_risk.package import Wordings
    from credit_risk.regimes import Regime
    from credit_risk.serving.replays import Replays
    from credit_risk.settings import Settings

    Answer = dict[str, Any]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
logger = logging.getLogger("credit_risk.serving")


class Cases:
    """The handlers.

    ``wordings`` gives the words of a package by its version; see `credit_risk.package.wordings`.
    ``replays`` makes decisions again.
    """

    def __init__(
        self,
        settings: Settings,
        audit: AuditLog,
        wordings: Callable[[str], Wordings],
        regime: Regime,
        replays: Replays,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._wordings = wordings
        self.regime = regime
        self._replays = replays

    async def decision(self, request: Request) -> Response:
        """GET /decisions/{id}: the record of a decision."""
        return await self._answered(request, asyncio.to_thread(self._shown, _id(request)))

    async def replay(self, request: Request) -> Response:
        """POST /decisions/{id}/replay: the decision made again, and what came out otherwise."""
        return await self._answered(request, self._replayed(request))

    async def notice(self, request: Request) -> Response:
        """GET /decisions/{id}/notice: what a notice of adverse action needs."""
        return await self._answered(request, asyncio.to_thread(self._notice, _id(request)))

    def _shown(self, decision_id: str) -> Answer:
        return self._decision(decision_id).to_json()

    async def _replayed(self, request: Request) -> Answer:
        await read_nothing(request, self._settings.request_seconds)
        return await self._replays.make(partial(self._decision, _id(request)))

    def _notice(self, decision_id: str) -> Answer:
        record = self._decision(decision_id)
        notices.check_adverse(record, None)
        wordings = self._wordings(str(record.model_version))
        return notices.notice(record, None, wordings, self.regime)

    def _decision(self, decision_id: str) -> Record:
        """The record of a decision of this server's portfolio.

        Raises:
            RecordNotFound: there is none of that id, or it is of something else.
        """
        if not _UUID.fullmatch(decision_id):
            raise RecordNotFound("no record has such an id")
        record = self._audit.get(decision_id)
        if record.kind != "decision" or record.portfolio != self._settings.portfolio:
            raise RecordNotFound("no decision of this portfolio has the id")
        return record

    async def _answered(self, request: Request, work: Awaitable[Answer]) -> Response:
        """What the work comes to, in the time a request has."""
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                answer = await work
        except Rejected as error:
            return problem_answer(error.problem)
        except TimeoutError:
            return problem_answer(problems.of(DeadlineExceeded("the answer was not ready in time")))
        except RecordingFailed:
            logger.exception("request %s failed", request.scope["call"].request_id)
            kind = problems.KINDS["records-unavailable"]
            return problem_answer(kind.problem("The record database does not answer"))
        except CreditRiskError as error:
            return problem_answer(problems.of(error))
        if "decision_id" in answer:
            request.scope["answer"] = {"decision_id": answer["decision_id"]}
        return json_answer(200, answer)


def _id(request: Request) -> str:
    decision_id: str = request.path_params["id"]
    return decision_id
