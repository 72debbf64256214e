"""Personal data with a real server: in no log, metric or file, and erased while it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.test_server import _applicants

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import RunningServer

pytestmark = pytest.mark.e2e

INCOME = 98_765.4321
WORDS = ("sentinel-value", "sentinel-name", str(INCOME))


def test_an_applicants_data_are_in_sealed_records_alone_until_they_are_erased(
    start: Callable[..., RunningServer],
) -> None:
    """Nothing of them is in plain words anywhere, and their keys are in no file afterwards."""
    server = start(workers=1, log_level="DEBUG")
    applicant = {**_applicants("personal-loans", 1)[0], "person_income": INCOME}
    wrong = {**applicant, "person_age": "sentinel-value", "sentinel-name": "sentinel-value"}
    with httpx.Client(base_url=server.url) as client:
        decision_id = client.post("/predict", json=applicant).json()["decision_id"]
        refused = [
            client.post("/predict", json=wrong),
            client.post("/explain", content=b"{sentinel-value", headers={"X-A": "sentinel-value"}),
            client.post("/predict/batch", json={"applications": [applicant, wrong]}),
            client.get("/decisions/sentinel-value?sentinel-name=sentinel-value"),
            client.post(f"/decisions/{decision_id}/replay"),
        ]
        # Metrics are written a moment after the answer.
        client.get("/livez")
        metrics = client.get("/metrics").text
        shown = client.get(f"/decisions/{decision_id}").json()
        assert shown["personal"]["input"]["person_income"] == INCOME

        erased = server.command(
            *("decisions", "erase", decision_id, "--reason", "asked for", "--yes", "--json")
        )

        assert json.loads(erased.stdout)["files_overwritten"]
        assert client.get(f"/decisions/{decision_id}").json()["withheld"] == "erased"
        replayed = client.post(f"/decisions/{decision_id}/replay").json()
        assert (replayed["verdict"], replayed["cause"]) == ("NOT_REPRODUCIBLE", "input-erased")
        assert client.post("/predict", json=applicant).status_code == 200
    state = Path(server.environment["STATE_DIR"])
    files = {file.name: file.read_bytes() for file in state.glob("records.db*")}
    files["log"] = server.log.read_bytes()
    files["metrics"] = metrics.encode()

    assert b"/predict" in files["log"]
    assert [(name, w) for name, data in files.items() for w in WORDS if w.encode() in data] == []
    values = (WORDS[0], WORDS[2])
    assert [(a.request.url, v) for a in refused for v in values if v in a.text] == []
