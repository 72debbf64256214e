"""`credit-risk evidence`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from credit_risk.cli.exits import OTHERWISE
from tests import served, toys
from tests.commands import (
    Outcome,
    Place,
    altered,
    decide,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_evidence_on_a_package_is_a_folder_of_its_own(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With what was decided, and a word on what is missing."""
    ids = decide(place, trees_package, toys.RISKY, *toys.applications(3))
    with served.serving(trees_package, place.state) as server:
        said = {"decision": "APPROVE", "reason": "COMPENSATING_FACTORS", "note": "Known for years."}
        for name in ("ada", "ben"):
            server.post(f"/decisions/{ids[0]}/review", said | {"reviewer": name})
    folder = place.folder / "pack"

    done = run("evidence", place.trees, "--out", str(folder), "--json").json()

    found = json.loads((folder / "evidence.json").read_text())
    assert (done["folder"], done["findings"]) == (str(folder), [])
    assert {"fairness", "outcomes"} <= set(done["missing"])
    assert found["model_version"] == place.trees
    assert found["topics"]["decisions"]["statements"][0]["text"].startswith("4 decisions")
    assert found["topics"]["reviews"]["tables"][0]["rows"][0][0] == "low-side"
    assert "Known for years" not in json.dumps(found)
    assert "MATCH 4" in found["topics"]["replay"]["statements"][0]["text"]
    integrity = found["topics"]["record-integrity"]["statements"]
    assert integrity[0]["text"].startswith(
        "Verified: 6 records and 0 checkpoints, their signatures"
    )
    assert any("no signing key is set" in statement["text"] for statement in integrity)
    refused(run("evidence", place.trees, "--out", str(folder)), 1, "is there already")
    altered(place, ids[0], risk_band="LOW")
    told = run("evidence", place.trees, "--out", str(place.folder / "found"))
    assert told.code == OTHERWISE
    assert "replay: Of the newest 4 decisions made again, 1 did not come out" in told.out
    refused(run("evidence", "nowhere", "--out", str(place.folder / "other")), 3, "nowhere")
    assert not (place.folder / "other").exists()
