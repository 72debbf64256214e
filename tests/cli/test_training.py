"""`credit-risk train`, `package` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.training import comparison
from tests import leases, toys
from tests.commands import (
    Outcome,
    Place,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def data(place: Place) -> Path:
    """A labelled file, and how the toy portfolio reads it."""
    training = place.folder / "portfolios" / toys.NAME / "training.yaml"
    training.write_text(leases.TRAINING, encoding="utf-8")
    rows = leases.labelled(200)
    rows.loc[0, "age"] = 5
    rows.to_csv(place.folder / "leases.csv", index=False)
    return place.folder / "leases.csv"


def test_a_labelled_file_is_evaluated_with_the_active_package(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """As JSON and as a table; a row outside the schema is counted with its reason."""
    figures = run("evaluate", "--data", str(data), "--json").json()

    assert figures["model_version"] == place.trees
    assert (figures["rows_read"], figures["rows_scored"]) == (200, 199)
    ((reason, rows),) = figures["rows_not_scored"].items()
    assert ("age" in reason, rows) == (True, 1)
    assert 0.5 < figures["roc_auc"] <= 1.0
    table = run("evaluate", "--data", str(data)).out
    assert f"{toys.NAME} {place.trees}: 199 of 200 rows scored" in table
    assert f"not scored: 1 rows, {reason}" in table
    assert f"{figures['roc_auc']:.3f}" in table


def test_figures_to_be_wary_of_come_with_a_warning(run: Callable[..., Outcome], data: Path) -> None:
    """Of a model of so few rows that its PDs are far from true, and of the rows it learned from."""
    trained = run("train", "--data", str(data), "--estimator", "logistic-regression", "--json")
    command = ("evaluate", "--model-version", trained.json()["version"], "--data")
    rows = data.read_text(encoding="utf-8").splitlines(keepends=True)
    (data.parent / "others.csv").write_text("".join(rows[:-1]), encoding="utf-8")

    assert "warning: the expected calibration error is" in trained.err
    assert run(*command, str(data), "--json").json()["same_file_as_training"] is True
    assert "trained on this very file" in run(*command, str(data)).out
    assert "trained on this very file" not in run(*command, str(data.parent / "others.csv")).out


def test_another_package_is_evaluated_when_it_is_named(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """To compare before activating; one that is not installed is not found."""
    command = ("evaluate", "--data", str(data), "--json", "--model-version")

    assert run(*command, place.linear).json()["model_version"] == place.linear
    refused(run(*command, "0123456789ab"), 3, "no package 0123456789ab")


def test_a_file_that_cannot_be_evaluated_is_refused(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """It lacks a column, or nothing says how to read it."""
    data.write_text("age,late\n34,0\n", encoding="utf-8")
    refused(run("evaluate", "--data", str(data)), 1, str(data))
    (place.folder / "portfolios" / toys.NAME / "training.yaml").unlink()
    refused(run("evaluate", "--data", str(data)), 1, "training.yaml")


@pytest.mark.parametrize("command", ["train", "package"])
def test_what_cannot_be_trained_or_packaged_is_refused(
    run: Callable[..., Outcome], data: Path, command: str
) -> None:
    """With 1 and one line, after the step that it happened in; nothing is installed."""
    data.write_text("age,late\n34,0\n", encoding="utf-8")
    arguments = ("train",) if command == "train" else ("package", str(data))

    outcome = run(*arguments, "--data", str(data))
    step, line = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (1, "")
    assert step.startswith("Reading")
    assert line.startswith(f"error: {data}")
    assert len(run("models", "list", "--json").json()) == 2


def test_estimators_are_compared_and_one_is_chosen_by_a_rule_that_is_told(
    run: Callable[..., Outcome], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a table, as JSON, and as a folder with a page; nothing is installed."""
    monkeypatch.setattr(comparison, "TIMED_SECONDS", 0.0)
    folder = data.parent / "comparison"
    command = ("compare", "--data", str(data), "--folds", "2", "--estimators")

    table = run(*command, "logistic-regression", "--report", str(folder))
    as_json = run(*command, " logistic-regression ", "--json").json()

    assert "chosen: logistic-regression: it has the best mean Brier score" in table.out
    assert (folder / "comparison.md").is_file()
    assert as_json["chosen"] == "logistic-regression"
    assert as_json["folds"] == 2
    assert len(run("models", "list", "--json").json()) == 2
    wrong = run(*command, "xgboost,guesswork")
    assert wrong.code == 2
    assert "no such estimator" in wrong.err
