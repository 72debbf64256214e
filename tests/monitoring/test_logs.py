"""Logs: JSON lines, one for each request, and nothing of an applicant in them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk.audit.log import SqlAuditLog
from credit_risk.serving.problems import KINDS
from monitoring import logs
from tests import served, toys
from tests.served import BODY_MAX, SCORING, Broken, Full, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.package import ModelPackage

SENTINEL = "sentinel-6021023"
CONFIGURED = ("", "bentoml", "uvicorn.error", "uvicorn.access", "circus", "credit_risk")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Put back what `logs.configure` changes: it is for a whole process."""
    root = logging.getLogger()
    pytests, root.handlers[:] = root.handlers[:], []  # not to be closed
    loggers = [logging.getLogger(name) for name in CONFIGURED]
    before = [(x.level, x.handlers[:], x.propagate, x.disabled) for x in loggers]
    yield
    for handler in root.handlers:
        handler.close()
    for logger, (level, handlers, propagate, disabled) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate, logger.disabled = propagate, disabled
    root.handlers[:] = pytests


class Printed:
    """What is logged to standard output; `logs.configure` takes it as it is at that moment."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self.configure("INFO")

    def configure(self, level: str) -> None:
        """Configure logging as the server does."""
        with contextlib.redirect_stdout(self.output):
            logs.configure(level)

    def __call__(self) -> list[dict[str, Any]]:
        """Every line so far, read as JSON."""
        logging.getLogger().handlers[0].flush()
        return [json.loads(line) for line in self.output.getvalue().split("\n")[:-1]]


@pytest.fixture
def lines() -> Printed:
    """The lines that are logged from now on."""
    return Printed()


@pytest.fixture
def server(trees_package: ModelPackage, tmp_path: Path) -> Iterator[Served]:
    """A server of the toy trees."""
    with served.serving(trees_package, tmp_path) as running:
        yield running


def test_a_request_is_one_line_with_the_documented_fields(server: Served, lines: Printed) -> None:
    """Ids, route, status, time and outcome."""
    before = datetime.now(UTC)
    response = server.post("/predict", toys.RISKY, x_request_id="desk-7")

    (line,) = lines()

    assert next(iter(line)) == "time"
    moment = datetime.fromisoformat(line.pop("time"))
    assert abs((moment - before).total_seconds()) < 60
    assert 0 < line.pop("ms") < 60_000
    assert line == {
        "level": "INFO",
        "logger": "credit_risk.requests",
        "message": "request",
        "request_id": "desk-7",
        "trace_id": None,
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "decision_id": response.json()["decision_id"],
        "decision": "DECLINE",
        "problem": None,
    }


def test_a_time_is_rfc_3339_in_utc_to_the_millisecond(server: Served, lines: Printed) -> None:
    """Lines of several machines sort by it as text."""
    server.get("/livez")

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines()[0]["time"])


def test_every_request_is_one_line_whatever_came_of_it(server: Served, lines: Printed) -> None:
    """Answered, refused, not found; its problem is named by its type."""
    server.get("/health")
    server.post("/predict/batch", {"applications": [toys.SAFE, {}]})
    server.post("/explain", b"{")
    server.post("/predict", b" " * (BODY_MAX + 1))
    server.get("/nope?age=57")
    server.client.delete("/predict")

    seen = [(x["method"], x["route"], x["status"], x["problem"]) for x in lines()]

    assert seen == [
        ("GET", "/health", 200, None),
        ("POST", "/predict/batch", 200, None),
        ("POST", "/explain", 400, "/problems/malformed-json"),
        ("POST", "/predict", 413, "/problems/body-too-large"),
        ("GET", "unknown", 404, "/problems/not-found"),
        ("DELETE", "/predict", 405, "/problems/method-not-allowed"),
    ]


def test_a_request_that_was_not_read_is_one_line_and_counted(
    server: Served, lines: Printed
) -> None:
    """Of which little is known."""
    server.server.unread("request-1", KINDS["head-too-large"])
    server.accounts.flush()

    (line,) = lines()
    assert (line["request_id"], line["method"], line["route"]) == ("request-1", None, "unknown")
    assert (line["status"], line["problem"]) == (431, "/problems/head-too-large")
    labels = {"route": "unknown", "status_class": "4xx", "problem": "head-too-large"}
    assert server.sample("credit_http_requests_total", **labels) == 1
    assert server.sample("credit_http_requests_in_flight") == 0


def test_a_failure_is_told_whole_in_one_line(server: Served, lines: Printed) -> None:
    """With its traceback, under the request's id; the request's own line follows."""
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))

    response = server.post("/predict", toys.SAFE)

    failed, request = lines()
    request_id = response.headers["x-request-id"]
    assert (failed["level"], failed["logger"]) == ("ERROR", "credit_risk.serving")
    assert failed["message"] == f"request {request_id} failed"
    assert "Traceback (most recent call last)" in failed["exc_info"]
    assert f"ZeroDivisionError: {served.MODEL_SAYS}" in failed["exc_info"]
    assert (request["request_id"], request["status"]) == (request_id, 500)
    assert request["problem"] == "/problems/internal-error"


@pytest.mark.parametrize("path", SCORING)
def test_no_line_holds_a_value_of_an_applicant(
    trees_package: ModelPackage, tmp_path: Path, lines: Printed, path: str
) -> None:
    """Not when it is decided, refused, failed, nor when it cannot be recorded."""
    application = toys.RISKY | {"income": 4321.0625, "price": 17_654.5}
    for log in (SqlAuditLog, Full):
        with served.serving(trees_package, tmp_path, log) as server:
            for sent in (application, application | {"use": SENTINEL}, {SENTINEL: SENTINEL}):
                server.post(path, {"applications": [sent]} if "batch" in path else sent)
            server.post(path, SENTINEL.encode())
            server.post(path, f'{{"income": {SENTINEL}}}'.encode())
            server.post(path, SENTINEL.encode(), content_type=f"text/{SENTINEL}")
            server.get(f"{path}/{SENTINEL}?income=4321.0625")
            server.active.current = replace(trees_package, model=Broken(ZeroDivisionError))
            server.post(path, {"applications": [application]} if "batch" in path else application)

    printed = json.dumps(lines())
    assert len(printed) > 1_000
    for value in (SENTINEL, "4321", "17654", "cargo", "poor"):
        assert value not in printed


def test_a_database_that_fails_is_told_without_what_was_to_be_written(
    trees_package: ModelPackage, tmp_path: Path, lines: Printed
) -> None:
    """The driver's own error names no parameters."""
    with served.serving(trees_package, tmp_path) as server:
        (tmp_path / "records.db").unlink()
        server.post("/predict", toys.RISKY | {"income": 4321.0625}, x_request_id="desk-7")

    told, request = lines()
    assert told["level"] == "ERROR"
    assert told["message"] == (
        "not recorded: the records could not be written: unable to open database file"
    )
    assert "Traceback" in told["exc_info"]
    assert "4321" not in json.dumps(told)
    assert (request["status"], request["problem"]) == (503, "/problems/not-recorded")


def test_a_line_stays_one_line(lines: Printed) -> None:
    """Whatever is in a message."""
    logging.getLogger("credit_risk.serving").warning('two\nlines, "quotes", \u2028 and \x1b[31m')

    (line,) = lines()
    assert line["message"] == 'two\nlines, "quotes", \u2028 and \x1b[31m'


def test_a_line_that_cannot_be_formatted_costs_no_other_one(lines: Printed) -> None:
    """Its place in the program is told, and nothing of what it was to say."""
    outlet = logging.getLogger().handlers[0]
    for message, argument in (("%d applicants", SENTINEL), ("%s one", "the next")):
        about = ("credit_risk", logging.INFO, __file__, 1, message, (argument,), None)
        outlet.emit(logging.LogRecord(*about))

    wrong, following = lines()
    assert "test_logs.py:" in wrong["message"]
    assert (wrong["level"], wrong["logger"]) == ("ERROR", "credit_risk")
    assert SENTINEL not in json.dumps(wrong)
    assert following["message"] == "the next one"


def test_other_libraries_lines_are_json_too(lines: Printed) -> None:
    """BentoML's and uvicorn's own handlers would print theirs beside ours."""
    logging.getLogger("bentoml").handlers[:] = [logging.StreamHandler(lines.output)]
    lines.configure("INFO")
    logging.getLogger("bentoml").info("Service loaded")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("somebody.else").warning("careful")
    logging.getLogger("somebody.else").info("chatter")

    seen = [(line["logger"], line["message"]) for line in lines()]

    assert seen == [
        ("bentoml", "Service loaded"),
        ("uvicorn.error", "Invalid HTTP request received."),
        ("somebody.else", "careful"),
    ]


def test_a_request_is_not_told_twice(lines: Printed) -> None:
    """The access log of uvicorn has raw paths in it, and costs time."""
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)  # as uvicorn does
    logging.getLogger("uvicorn.access").info("GET /predict?income=4321 200")

    assert lines() == []


@pytest.mark.parametrize(("level", "number"), [("DEBUG", 3), ("INFO", 2), ("ERROR", 0)])
def test_the_least_severe_line_is_a_setting(lines: Printed, level: str, number: int) -> None:
    """For our own lines."""
    lines.configure(level)
    logger = logging.getLogger("credit_risk.activation")
    logger.debug("1")
    logger.info("2")
    logger.warning("3")

    assert len(lines()) == number


def test_configuring_twice_prints_once(lines: Printed) -> None:
    """Each worker does it; a reload does it again."""
    lines.configure("INFO")
    lines.configure("INFO")
    logging.getLogger("credit_risk.activation").info("once")

    assert [line["message"] for line in lines()] == ["once"]


def test_what_nobody_caught_and_warnings_are_lines_too(
    lines: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the main thread and in others, as of any library; an interrupt is no error."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.capture()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("take care", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(capture=False)
    error = ZeroDivisionError("by hand")
    sys.excepthook(ZeroDivisionError, error, None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()

    warned, first, second = lines()
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert "take care" in warned["message"]
    assert first["level"] == second["level"] == "CRITICAL"
    assert first["exc_info"] == "ZeroDivisionError: by hand"
    assert "Traceback" in second["exc_info"]


# Nobody waits for who reads the log


class Pipe(io.StringIO):
    """A stream whose reader takes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def write(self, text: str) -> int:
        """Wait for the reader."""
        assert self.let.wait(60.0)
        return super().write(text)


def test_who_logs_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the reader is stuck lines are kept, then dropped, and how many were is told."""
    monkeypatch.setattr(logs, "WAITING_MAX", 5)
    pipe = Pipe()
    outlet = logs.Outlet(pipe)
    outlet.setFormatter(logs.Line())
    record = logging.makeLogRecord({"msg": "line", "levelname": "INFO", "name": "somebody"})

    outlet.emit(record)
    for _ in range(100):
        outlet.emit(record)  # a test that hangs here has failed
    lost = outlet.dropped  # told while the reader is stuck: it may be for long
    pipe.let.set()
    outlet.close()

    told = [json.loads(line) for line in pipe.getvalue().splitlines()]
    written = sum(line["message"] == "line" for line in told)
    dropped = sum(int(x["message"].split()[0]) for x in told if x["logger"] == "monitoring.logs")
    assert outlet.dropped == dropped == lost > 0
    assert written + dropped == 101


def test_a_reader_that_has_gone_harms_nobody() -> None:
    """The stream is closed: lines are lost, and whoever logs goes on."""
    stream = io.StringIO()
    outlet = logs.Outlet(stream)
    outlet.setFormatter(logs.Line())
    stream.close()

    outlet.emit(logging.makeLogRecord({"msg": "line"}))
    outlet.flush()
    outlet.close()

    assert outlet.dropped == 1
