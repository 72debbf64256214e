"""`credit-risk validate` and `retrain`."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from credit_risk import outcomes, package
from credit_risk.audit.log import SqlAuditLog
from credit_risk.decisions import Call
from credit_risk.training import plots, retrain, tracking
from credit_risk.training.tracking import Registered
from tests import leases, toys
from tests.commands import Outcome, Place, refused
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINEAR = ("--estimator", "logistic-regression")
MONTH = 30 * 86_400_000_000


class Registry:
    """A run whose packages are registered here: the alias that each was given."""

    def __init__(self) -> None:
        self.aliases: list[str | None] = []

    def register(self, _folder: Path, *, figures: object, alias: str | None) -> Registered:
        """Number it."""
        assert figures
        self.aliases.append(alias)
        return Registered(toys.NAME, str(len(self.aliases)), "r-1")

    def report(self, folder: Path) -> None:
        """There is one."""
        assert (folder / "report.md").is_file()


@pytest.fixture
def data(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Newer leases than those of the package that decides, and how they are read."""
    monkeypatch.setattr(plots, "png", lambda _figure: b"")
    portfolio = place.folder / "portfolios" / toys.NAME
    (portfolio / "training.yaml").write_text(leases.TRAINING, encoding="utf-8")
    # The toy package was written down and not trained: nobody's population is its own.
    limits = "{field_psi: {}, score_psi: {}, missing_rise: {}, default_rate: {}}"
    policy = f"portfolio: {toys.NAME}\nversion: '1'\nleast_rows: 100\nlimits: {limits}\n"
    (portfolio / "validation.yaml").write_text(policy + "least_of_each: 20\n", encoding="utf-8")
    return leases.write_labelled(place.folder / "leases.csv", 400, seed=4)


def test_a_file_is_accepted_or_refused_with_its_rows(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """As text and as JSON; exit code 1 for a refusal."""
    accepted = run("validate", "--data", str(data))
    assert accepted.code == 0
    assert accepted.out.startswith(f"{toys.NAME}: 400 rows, ACCEPTED\n")

    rows = leases.labelled(400, seed=4)
    rows.loc[[3, 7], "income"] = None
    rows.to_csv(data, index=False)
    told = run("validate", "--data", str(data))
    assert told.code == 1
    assert "refused, missing: income: 2 of 400 rows (0.50%) hold nothing: rows 4, 8" in told.out
    report = run("validate", "--data", str(data), "--json", "--model-version", place.linear)
    assert report.code == 1
    assert report.json()["reference"] == place.linear
    assert report.json()["findings"][0]["first"] == [4, 8]


def test_a_candidate_is_installed_and_does_not_decide(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """Its report is in a folder; who decides still does."""
    told = run("retrain", "--data", str(data), *LINEAR, "--json").json()

    assert told["champion"] == place.trees
    listed = {row["version"]: row["active"] for row in run("models", "list", "--json").json()}
    assert listed[told["candidate"]] is False
    assert listed[place.trees] is True
    assert told["comparison"]["rows"] == 100
    assert told["on_record"] is None
    folder = place.state / "retraining" / toys.NAME / told["validation"]["sha256"][:12]
    assert told["report"] == str(folder)
    assert json.loads((folder / "retraining.json").read_text(encoding="utf-8")) == told
    assert {path.name for path in folder.iterdir()} == {
        *("validation.json", "retraining.json", "report.md")
    }


def test_a_candidate_that_decides_already_is_no_challenger(
    run: Callable[..., Outcome], place: Place, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called so, gets no alias in the registry, and is offered for nothing."""
    registry = Registry()
    monkeypatch.setattr(tracking, "begun", lambda *_: nullcontext(registry))
    again = ("retrain", "--data", str(data), *LINEAR)
    first = run(*again).out
    (made,) = (path.name for path in (place.state / "packages" / toys.NAME).iterdir())
    assert f"credit-risk promote {made} " in first
    assert "registered: version 1, alias challenger\n" in first

    assert run("models", "activate", made).code == 0
    second = run(*again).out

    assert registry.aliases == ["challenger", None]
    assert retrain.IS_CHAMPION in second
    assert "registered: version 2\n" in second
    assert second.endswith("decides already: there is nothing to challenge or promote\n")
    assert f"credit-risk challenge {made}" not in second
    assert f"credit-risk promote {made}" not in second


def test_refused_rows_make_no_candidate(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """The report is written all the same."""
    leases.labelled(400).drop(columns="price").to_csv(data, index=False)
    folder = place.folder / "why"

    told = run("retrain", "--data", str(data), "--report", str(folder))

    assert told.code == 1
    assert "refused, columns: price: the column is missing" in told.out
    assert told.out.endswith(f"nothing was trained; report: {folder}\n")
    assert {path.name for path in folder.iterdir()} == {"validation.json"}
    assert not (place.state / "packages").exists()
    assert run("retrain", "--data", str(data), "--json").json()["verdict"] == "REFUSED"


@pytest.mark.usefixtures("data")
def test_a_candidate_is_made_of_recorded_applications_with_an_outcome(
    run: Callable[..., Outcome], place: Place
) -> None:
    """What it would have decided of them is told; no file of applications is left behind."""
    rows = leases.labelled(300, seed=4)
    late = rows.pop(leases.TARGET).tolist()
    shipped = package.load(place.folder / "shipped" / toys.NAME / place.trees)
    given = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in rows.to_dict("records")
    ]
    records = decided(shipped, [shipped.schema.validate_application(row) for row in given])
    place.state.mkdir()
    with closing(SqlAuditLog(f"sqlite:///{place.state / 'records.db'}", SEALING)) as log:
        log.append(records).result()
        said = [
            {"decision_id": record.id, "defaulted": bool(label), "observed": "2023-12-01"}
            for record, label in zip(records, late, strict=True)
        ]
        outcomes.add(log, toys.NAME, said, Call("/outcomes", "r-1", at=NOON + MONTH))

    told = run("retrain", "--from-records", "--since", "2023-11-01", *LINEAR)

    assert told.code == 0, told.err
    assert "300 rows" in told.out
    assert "Outcomes exist for accepted applications only" in told.out
    assert "Of the newest 300, 300 could be made again with the candidate" in told.out
    assert not list(place.state.glob("retraining-*"))
    (folder,) = (place.state / "retraining" / toys.NAME).iterdir()
    known = json.loads((folder / "retraining.json").read_text(encoding="utf-8"))
    made = package.load(place.state / "packages" / toys.NAME / known["candidate"])
    assert made.provenance.trained_on is not None
    assert made.provenance.trained_on["name"].startswith("Recorded decisions with an outcome")
    later = run("retrain", "--from-records", "--since", "2024-01-01")
    assert "error: no application on record has an outcome" in later.err


def test_rows_come_from_a_file_or_from_records(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """And from one of them."""
    assert run("retrain").code == 2
    assert run("retrain", "--data", str(data), "--from-records").code == 2
    assert run("retrain", "--data", str(data), "--since", "2026-01-01").code == 2
    none = run("retrain", "--from-records")
    assert (none.code, none.out) == (3, "")
    refused(run("retrain", "--data", str(place.folder / "no.csv")), 3, "does not exist")
    refused(run("validate", "--data", str(place.folder / "no.csv")), 3, "does not exist")
