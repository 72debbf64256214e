"""Applicants' data are in sealed records and in answers to who asks for them, and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from monitoring.logs import Line
from tests import served, toys
from tests.served import Broken, Full, Served

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from credit_risk.package import ModelPackage

NUMBERS = {"income": 8_765.4321, "price": 7_654.321, "years_employed": 13.57924}
"""Fields of an application whose values are nowhere else."""
VALUES = ("sentinel-value", *(str(number) for number in NUMBERS.values()))
NAME = "sentinel-name"
VALID = {**toys.RISKY, **NUMBERS}
REFERRED = {**toys.SAFE, "years_employed": None}
"""Left to people, by a rule."""
WRONG: tuple[Any, ...] = (
    {**VALID, "age": "sentinel-value"},
    {**VALID, "use": "sentinel-value"},
    {**VALID, "history": {"sentinel-name": "sentinel-value"}},
    {**VALID, "sentinel-name": "sentinel-value"},
    {"sentinel-name": ["sentinel-value"]},
    ["sentinel-value"],
    "sentinel-value",
    b'{"age": sentinel-value}',
    b'{"sentinel-name": 1, "sentinel-name": "sentinel-value"}',
    b'{"age": "\xff sentinel-value"}',
)


def traffic(server: Served, sealed_key: str) -> list[str]:
    """Every call with every kind of application, valid and wrong; the texts that were answered."""
    texts = []
    for path in ("/predict", "/explain"):
        texts += [server.post(path, body).text for body in (VALID, *WRONG)]
        texts.append(server.post(path, VALID, content_type="text/sentinel-value").text)
    rows = [VALID, *(row for row in WRONG if not isinstance(row, bytes))]
    texts.append(server.post("/predict/batch", {"applications": rows}).text)
    texts.append(server.post("/predict/batch", {"sentinel-name": rows}).text)
    for body in (VALID, VALID, {**VALID, "age": 30}):
        texts.append(server.post("/predict", body, idempotency_key=sealed_key).text)
    texts.append(server.get("/sentinel-value?sentinel-name=sentinel-value").text)
    texts.append(server.get("/decisions/sentinel-value").text)
    return texts


def cases(server: Served) -> list[str]:
    """Every call about a decision, but for those that show what was asked about."""
    path = f"/decisions/{server.post('/predict', REFERRED).json()['decision_id']}"
    reviewed = {
        "reviewer": "anna",
        "decision": "APPROVE",
        "reason": "sentinel-value",
        "note": "sentinel-value",
    }
    return [
        server.post(f"{path}/replay", b"").text,
        server.get(f"{path}/notice").text,
        server.post(f"{path}/claim", {"reviewer": "anna"}).text,
        server.post(f"{path}/review", reviewed).text,
        server.post(f"{path}/review", {**reviewed, "sentinel-name": 1}).text,
        server.post(f"{path}/review", {**reviewed, "reason": "INFORMATION_VERIFIED"}).text,
        server.get("/reviews").text,
        server.get("/reviews/summary").text,
    ]


def test_no_value_or_name_of_a_callers_leaves_the_sealed_records(
    trees_package: ModelPackage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in logs, metrics, traces, other answers or the database's files, in plain words."""
    caplog.set_level("DEBUG")
    spans = InMemorySpanExporter()
    with served.serving(trees_package, tmp_path) as running:
        server = Served(running.active, running.audit, running.settings, exporter=spans)
        texts = traffic(server, "sentinel-value")
        decided = server.audit.find(kind="decision")[0]
        texts += cases(server)
        full = server.settings_with(waiting_rows_max=1)
        server.active.current = replace(trees_package, model=Broken(ZeroDivisionError))
        texts += traffic(server, "sentinel-value-2")
        texts += traffic(full, "sentinel-value-3")
        shown = server.get(f"/decisions/{decided.id}").text
        files = b"".join(file.read_bytes() for file in tmp_path.glob("records.db*"))
        server.traces.close()
        kinds = {record.kind for record in server.records()}
    with served.serving(trees_package, tmp_path / "full", Full) as broken:
        texts += traffic(broken, "sentinel-value-4")
    formatter = Line()
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # clients
    logged = "\n".join(formatter.format(record) for record in ours)
    traced = "\n".join(span.to_json() for span in spans.get_finished_spans())

    assert all(str(number) in shown for number in NUMBERS.values())
    assert kinds >= {"decision", "refusal", "failure", "claim", "review"}
    assert all(len(text) > 100 for text in (logged, traced, server.get("/metrics").text))
    everywhere = [logged, traced, server.get("/metrics").text, full.get("/metrics").text]
    for text in (*everywhere, files.decode("latin-1")):
        assert [value for value in (*VALUES, NAME) if value in text] == []
    # A caller is told the places, which are names of its own, and never a value.
    assert [(value, text) for text in texts for value in VALUES if value in text] == []


def test_the_places_of_a_refusal_are_sealed_with_what_was_refused(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """A name that the schema does not know may be a person's; the record shows it to who may."""
    with served.serving(trees_package, tmp_path) as server:
        server.post("/predict", {**toys.SAFE, "Jane Doe": 1})
        record = server.only_record()

    assert "Jane" not in json.dumps(record.body)
    assert record.personal is not None
    assert record.personal["errors"] == [{"pointer": "/Jane Doe", "detail": "Unknown field"}]
