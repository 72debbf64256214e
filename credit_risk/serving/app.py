"""The HTTP surface: routes, and the one place where errors become answers.

A Starlette application over the use case (`credit_risk.decisions.Desk`). Around it, `Server` gives
every request its id, counts it, logs one line, and answers what nothing else has answered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from functools import partial
from http import HTTPStatus
from importlib.metadata import version as library_version
from typing import TYPE_CHECKING, Any

import pydantic_core
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from credit_risk import __version__
from credit_risk.decisions import TURN_ROWS, Call, new_id
from credit_risk.errors import (
    ApplicationInvalid,
    CreditRiskError,
    DeadlineExceeded,
    KeyInUse,
    KeyReused,
    Overloaded,
    RecordingFailed,
)
from credit_risk.scoring import check_golden
from credit_risk.serving import openapi, pages, problems
from credit_risk.serving.once import HEADER, Once
from credit_risk.serving.responses import (
    RETRY_AFTER_SECONDS,
    Rejected,
    json_answer,
    problem_answer,
    read_json,
)
from monitoring.accounts import Answered
from monitoring.traces import UNKNOWN_ROUTE, Sampled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Future

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from credit_risk.canary import Canary
    from credit_risk.decisions import Desk, Keep, Problem
    from credit_risk.idempotency import Answers
    from credit_risk.package import ModelPackage
    from credit_risk.serving.activation import ActivePackage
    from credit_risk.serving.cases import Cases
    from credit_risk.serving.monitor import Monitor
    from credit_risk.serving.problems import Kind
    from credit_risk.serving.stopping import Stopping
    from credit_risk.settings import Settings
    from monitoring.accounts import Accounts
    from monitoring.traces import Traces

    Answer = dict[str, Any]
    Operation = Callable[[ModelPackage, bytes, Call, Keep | None], Awaitable[Answer]]

logger = logging.getLogger("credit_risk.serving")

GOLDEN_AT_READINESS = 4
PING_SECONDS = 2.0
APPLICANT = b"applicant-key"
"""Header with a pseudonym that stands for the applicant where a challenger decides about some."""
SCORING = ("/predict", "/predict/batch", "/predict/explain", "/explain")
"""Routes that decide: what objectives are about."""
_ALIVE = {"status": "alive"}
_READY = {"status": "ready"}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_NOTHING: dict[str, Any] = {}


class Calls:
    """The handlers of all routes; each is a few lines over the use case."""

    def __init__(  # noqa: PLR0917 - collaborators, each of a type of its own
        self,
        settings: Settings,
        active: ActivePackage,
        desk: Desk,
        answers: Answers,
        metrics_text: Callable[[], Awaitable[tuple[bytes, str]]],
        stopping: Stopping,
        cases: Cases,
        monitor: Monitor,
        checked: Callable[[Mapping[str, bool]], None],
    ) -> None:
        self._checked = checked
        self.stopping = stopping
        self.cases = cases
        self.monitor = monitor
        self._settings = settings
        self._active = active
        self._desk = desk
        self._answers = answers
        self._metrics_text = metrics_text
        self._documents: tuple[str, bytes] = ("", b"")

    async def predict(self, request: Request) -> Response:
        """POST /predict."""

        async def operation(
            package: ModelPackage, body: bytes, call: Call, keep: Keep | None
        ) -> Answer:
            canary = self._canary(request)
            return await self._desk.predict(package, body, call, keep=keep, canary=canary)

        return await self._decide(request, operation, self._settings.deadline_seconds)

    async def explain(self, request: Request) -> Response:
        """POST /explain and /predict/explain."""

        async def operation(
            package: ModelPackage, body: bytes, call: Call, keep: Keep | None
        ) -> Answer:
            canary = self._canary(request)
            return await self._desk.predict(
                package, body, call, explain=True, keep=keep, canary=canary
            )

        return await self._decide(request, operation, self._settings.deadline_seconds)

    async def predict_batch(self, request: Request) -> Response:
        """POST /predict/batch."""

        async def operation(
            package: ModelPackage, body: bytes, call: Call, keep: Keep | None
        ) -> Answer:
            rows_max = self._settings.batch_rows_max
            canary = self._active.canary
            return await self._desk.predict_batch(
                package, body, call, rows_max, keep=keep, canary=canary
            )

        return await self._decide(request, operation, self._settings.batch_deadline_seconds)

    async def root(self, request: Request) -> Response:
        """GET /: the docs for browsers, the status for programs."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs", status_code=307)
        return json_answer(200, _about(self._active.current))

    async def livez(self, _: Request) -> Response:
        """GET /livez: the process answers."""
        return json_answer(200, _ALIVE)

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: golden records get their golden answers, and records can be written."""
        if self.stopping.begun:
            return problem_answer(
                problems.KINDS["not-ready"].problem("The server is about to stop")
            )
        checks = await self.checks()
        failed = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
        if failed:
            return problem_answer(problems.KINDS["not-ready"].problem("; ".join(failed)))
        return json_answer(200, _READY)

    async def health(self, _: Request) -> Response:
        """GET /health: every check, with what is wrong."""
        body = _health(self._active.current, await self.checks(), self._active.fault)
        return json_answer(200 if body["status"] == "ok" else 503, body)

    async def version(self, _: Request) -> Response:
        """GET /version."""
        return json_answer(200, _version(self._active.current))

    async def schema(self, _: Request) -> Response:
        """GET /schema: the application as JSON Schema."""
        return json_answer(
            200, self._active.current.schema.json_schema(), "application/schema+json"
        )

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json, for the package that decides."""
        package = self._active.current
        if self._documents[0] != package.version:
            answers = {
                "/": _about(package),
                "/health": _health(package, {"model": "ok", "records": "ok"}, None),
                "/livez": _ALIVE,
                "/readyz": _READY,
                "/version": _version(package),
                "/schema": package.schema.json_schema(),
                "/problems/{slug}": _advice(problems.KINDS["invalid-application"]),
            }
            regime = self.cases.regime
            # Its examples are decided, which takes some models long.
            document = await asyncio.to_thread(
                openapi.document, package, self._settings, answers, regime
            )
            self._documents = (package.version, pydantic_core.to_json(document))
        return Response(self._documents[1], media_type="application/json")

    async def docs(self, _: Request) -> Response:
        """GET /docs."""
        return HTMLResponse(pages.docs(self._active.current.schema.title))

    async def problem(self, request: Request) -> Response:
        """GET /problems/{slug}: what a problem type means."""
        kind = problems.KINDS.get(request.path_params["slug"])
        if kind is None:
            raise HTTPException(404)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(pages.problem(kind))
        return json_answer(200, _advice(kind))

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        text, media_type = await self._metrics_text()
        return Response(text, headers={"content-type": media_type})

    def _canary(self, request: Request) -> Canary | None:
        """What decides instead about some applicants, and who applies, as far as the header says.

        The header is used to draw, and neither kept nor logged.
        """
        canary = self._active.canary
        if canary is None:
            return None
        given = [value for name, value in request.scope["headers"] if name == APPLICANT]
        return canary.of(b", ".join(given) or None)

    async def _decide(self, request: Request, operation: Operation, seconds: float) -> Response:
        """Run a scoring call, ``seconds`` long at most; with an idempotency key, once."""
        keys = [value for name, value in request.scope["headers"] if name == HEADER]
        if not keys:
            return await self._decided(request, operation, None)
        once = Once(self._answers, keys, seconds)
        try:
            return await self._decided(request, operation, once)
        finally:
            once.end()

    async def _decided(self, request: Request, operation: Operation, once: Once | None) -> Response:
        """What a scoring call comes to, on record before it is answered."""
        call: Call = request.scope["call"]
        package = self._active.current
        body = keep = None
        record: Callable[..., Awaitable[Response]]
        try:
            body = await read_json(
                request, self._settings.body_limit, self._settings.request_seconds
            )
            call.passed("read")
            if once is not None:
                if (before := await once.begin(request.scope, body)) is not None:
                    return before
                call = request.scope["call"]
                keep = once.keep(_encoded)
            answer = await operation(package, body, call, keep)
        except (Rejected, ApplicationInvalid, KeyReused) as error:
            record = partial(self._refused, once)
            problem = error.problem if isinstance(error, Rejected) else problems.of(error)
        except (KeyInUse, Overloaded, RecordingFailed) as error:
            return _not_recorded(error)
        except DeadlineExceeded as error:
            record, problem = self._failed, problems.of(error)
        except Exception as error:
            # The boundary: whatever failed is logged whole, on record, and never a traceback
            # to the caller.
            logger.exception("request %s failed", call.request_id)
            record, problem = self._failed, problems.of(error)
        else:
            request.scope["answer"] = answer
            return await _encoded(answer) if once is None else once.recorded()
        try:
            return await record(problem, body, call, package)
        except (KeyInUse, RecordingFailed) as error:
            return _not_recorded(error)

    async def _refused(
        self,
        once: Once | None,
        problem: Problem,
        body: bytes | None,
        call: Call,
        package: ModelPackage,
    ) -> Response:
        async def encode(document: Answer) -> Response:
            return problem_answer(problem, document)

        keep = None if once is None else once.keep(encode)
        document = await self._desk.refuse(problem, body, call, package, keep=keep)
        return await encode(document) if once is None or keep is None else once.recorded()

    async def _failed(
        self, problem: Problem, body: bytes | None, call: Call, package: ModelPackage
    ) -> Response:
        return problem_answer(problem, await self._desk.fail(problem, body, call, package))

    async def checks(self) -> dict[str, str]:
        """What it takes to decide, each with what is wrong with it, or "ok"."""
        checks = {"model": "ok", "records": "ok"}
        package = self._active.current
        try:
            if package.model.slow:
                await asyncio.to_thread(check_golden, package, GOLDEN_AT_READINESS)
            else:
                check_golden(package, GOLDEN_AT_READINESS)
        except CreditRiskError as error:
            checks["model"] = str(error)
        except Exception as error:
            # A check that fails in whatever way is a failed check, not a failed request.
            logger.exception("the golden records could not be scored")
            checks["model"] = type(error).__name__
        try:
            ping: Future[None] = self._desk.audit.ping()
            await asyncio.wait_for(asyncio.wrap_future(ping), PING_SECONDS)
        except (RecordingFailed, TimeoutError) as error:
            checks["records"] = str(error) or "the record database does not answer"
        self._checked({name: state == "ok" for name, state in checks.items()})
        return checks


def routes(calls: Calls) -> list[Route]:
    """All routes, by path."""
    return [
        Route("/predict", calls.predict, methods=["POST"]),
        Route("/predict/batch", calls.predict_batch, methods=["POST"]),
        Route("/explain", calls.explain, methods=["POST"]),
        Route("/predict/explain", calls.explain, methods=["POST"]),
        Route("/decisions/{id}", calls.cases.decision),
        Route("/decisions/{id}/notice", calls.cases.notice),
        Route("/decisions/{id}/replay", calls.cases.replay, methods=["POST"]),
        Route("/decisions/{id}/proof", calls.cases.proof),
        Route("/decisions/{id}/case", calls.cases.case),
        Route("/decisions/{id}/claim", calls.cases.claim, methods=["POST"]),
        Route("/decisions/{id}/release", calls.cases.release, methods=["POST"]),
        Route("/decisions/{id}/review", calls.cases.review, methods=["POST"]),
        Route("/reviews", calls.cases.reviews),
        Route("/reviews/summary", calls.cases.summary),
        Route("/outcomes", calls.monitor.outcomes, methods=["POST"]),
        Route("/monitor/drift", calls.monitor.drift, methods=["POST"]),
        Route("/monitor/performance", calls.monitor.performance),
        Route("/monitor/fairness", calls.monitor.fairness),
        Route("/monitor/challenger", calls.monitor.challenger),
        Route("/monitor/retraining-check", calls.monitor.check, methods=["POST"]),
        Route("/monitor/retraining-check/{id}", calls.monitor.checked),
        Route("/monitor/retraining-check/{id}/decision", calls.monitor.judge, methods=["POST"]),
        Route("/", calls.root),
        Route("/health", calls.health),
        Route("/livez", calls.livez),
        Route("/readyz", calls.readyz),
        Route("/version", calls.version),
        Route("/schema", calls.schema),
        Route("/openapi.json", calls.openapi),
        Route("/docs", calls.docs),
        Route("/problems/{slug}", calls.problem),
        Route("/metrics", calls.metrics),
    ]


class Server:
    """The ASGI application."""

    def __init__(self, calls: Calls, accounts: Accounts, traces: Traces) -> None:
        self._accounts = accounts
        self._traces = traces
        self._stopping = calls.stopping
        listed = routes(calls)
        self._paths = {route.path for route in listed}
        self._patterns = [(route.path_regex, route.path) for route in listed if "{" in route.path]
        assets = Mount("/docs/assets", StaticFiles(directory=pages.assets()))
        app = Starlette(
            routes=[*listed, assets],
            exception_handlers={HTTPException: _http_exception, Exception: _failure},
        )
        # Its redirects name scheme and host: behind a proxy that ends TLS, a client would follow
        # with the application in clear text.
        app.router.redirect_slashes = False
        self._app: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; other kinds of scope are not ours."""
        given = None
        parents: list[bytes] = []
        states: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"x-request-id" and given is None:
                given = value.decode("latin-1")
            elif name == b"traceparent":
                parents.append(value)
            elif name == b"tracestate":
                states.append(value)
        request_id = given if given and _REQUEST_ID.fullmatch(given) else new_id()
        trace = self._traces.follow(parents, states, scope)
        call = Call(scope["path"], request_id, trace)
        scope["call"] = call
        self._accounts.arrived()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode("latin-1")))
                if isinstance(trace, Sampled):
                    message["headers"].append((b"traceresponse", trace.response))
                if self._stopping.begun or status == HTTPStatus.REQUEST_TIMEOUT:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            # Answered by now (see `_failure`), unless it was the sending that failed.
            logger.exception("request %s failed", request_id)
        finally:
            self._account(scope, call, status)

    def unread(self, request_id: str, kind: Kind) -> None:
        """A request was refused before it could be read; no more is known of it than its id."""
        call = Call("", request_id)
        self._accounts.arrived()
        self._accounts.answered(
            Answered(call, None, UNKNOWN_ROUTE, kind.status, 0.0, _NOTHING, kind.uri, call.at / 1e6)
        )

    def _account(self, scope: Scope, call: Call, status: int) -> None:
        seconds = time.perf_counter() - call.received
        self._accounts.answered(
            Answered(
                call,
                scope["method"],
                self._template(scope["path"]),
                status,
                seconds,
                scope.get("answer", _NOTHING),
                scope.get("problem"),
                call.at / 1e6 + seconds,
            )
        )

    def _template(self, path: str) -> str:
        """What stands for the path in metrics and logs: no id, and no more values than routes."""
        if path in self._paths:
            return path
        for pattern, template in self._patterns:
            if pattern.fullmatch(path):
                return template
        return "/docs" if path.startswith("/docs/assets/") else UNKNOWN_ROUTE


def _about(package: ModelPackage) -> Answer:
    return {
        "service": "credit-risk-server",
        "portfolio": package.portfolio,
        "model_version": package.version,
        "policy_version": package.policy_version,
        "docs": "/docs",
        "openapi": "/openapi.json",
    }


def _health(package: ModelPackage, checks: dict[str, str], fault: str | None) -> Answer:
    return {
        "status": "ok" if all(state == "ok" for state in checks.values()) else "failing",
        "portfolio": package.portfolio,
        "model_version": package.version,
        "policy_version": package.policy_version,
        "checks": {**checks, "activation": fault or "ok"},
    }


def _version(package: ModelPackage) -> Answer:
    sums = package.digests
    return {
        "service": {"version": __version__, "bentoml": library_version("bentoml")},
        "portfolio": package.portfolio,
        "model": {
            "version": package.version,
            "sha256": package.digest,
            "estimator": package.spec.estimator,
            "kind": package.spec.kind,
            "signed_by": list(package.signed_by),
        },
        "policy": {"version": package.policy_version, "sha256": sums["policy.yaml"]},
        "schema": {"version": package.schema.version, "sha256": sums["schema.yaml"]},
        "reasons": {"version": package.reasons.version, "sha256": sums["reasons.yaml"]},
        "reference_group": {
            "name": package.provenance.reference.name,
            "sha256": sums["reference.npz"],
        },
    }


def _advice(kind: Kind) -> Answer:
    return {"type": kind.uri, "title": kind.title, "status": kind.status, "advice": kind.advice}


def _not_recorded(error: KeyInUse | Overloaded | RecordingFailed) -> Response:
    """No record could be made; or it is another request's to make; or nothing was begun.

    In the last case it would be work for a server that has too much.
    """
    if isinstance(error, RecordingFailed):
        logger.error("not recorded: %s", error, exc_info=error)
    seconds = error.seconds if isinstance(error, Overloaded) else RETRY_AFTER_SECONDS
    return problem_answer(problems.of(error), seconds=seconds)


async def _encoded(answer: Answer) -> Response:
    """A decision, or many of them; others on the event loop have their turn between those."""
    results = answer.get("results", ())
    if len(results) <= TURN_ROWS:
        return json_answer(200, answer)
    parts = []
    for start in range(0, len(results), TURN_ROWS):
        parts.append(pydantic_core.to_json(results[start : start + TURN_ROWS])[1:-1])
        await asyncio.sleep(0)
    head = pydantic_core.to_json({name: answer[name] for name in answer if name != "results"})
    content = b'%b,"results":[%b]}' % (head[:-1], b",".join(parts))
    return Response(content, media_type="application/json")


async def _http_exception(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method) as problems."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    slug = {404: "not-found", 405: "method-not-allowed"}.get(status, "internal-error")
    kind = problems.KINDS[slug]
    headers = getattr(error, "headers", None)
    return problem_answer(kind.problem(kind.advice), headers=headers)


async def _failure(_: Request, error: Exception) -> Response:
    """What no handler expected, as a problem; the error itself goes on to the log."""
    return problem_answer(problems.of(error))
