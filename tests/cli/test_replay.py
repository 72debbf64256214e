"""`credit-risk replay`: one decision, or history, made again."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk import documents, scoring
from credit_risk.audit.keys import new_encryption_key
from credit_risk.policy import Policy
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    altered,
    decide,
    listed,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def erase(place: Place, record_id: str) -> None:
    """Take the key to an applicant's data away."""
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        database.execute("UPDATE records SET data_key = NULL WHERE id = ?", (record_id,))
        database.commit()


def milder(place: Place) -> Path:
    """A policy that approves up to a PD of 0.35 where the toy one does up to 0.2."""
    file = place.folder / "milder.yaml"
    file.write_text(toys.POLICY.replace(" 0.2,", " 0.35,"), encoding="utf-8")
    return file


def test_a_decision_is_made_again(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With the package it names, though another one is active by now; nothing is recorded."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    run("models", "activate", place.linear)
    before = listed(run, "--all")

    outcome = run("replay", decision)
    assert (outcome.code, outcome.out) == (0, "MATCH: the recorded answer comes out again\n")
    told = run("replay", decision, "--json")
    assert told.code == 0
    assert told.json()["verdict"] == "MATCH"
    assert told.json()["recorded"] == told.json()["replayed"]
    assert listed(run, "--all") == before


def test_a_decision_that_comes_out_otherwise_is_told_and_ends_with_5(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By what differs, as recorded and as replayed."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    altered(place, decision, risk_band="LOW")

    outcome = run("replay", decision)

    assert outcome.code == 5
    first, *table = outcome.out.splitlines()
    assert first.startswith("ENVIRONMENT_CHANGED: ")
    assert any(line.split() == ["risk_band", '"LOW"', '"VERY_HIGH"'] for line in table)
    assert run("replay", decision, "--json").code == 5


def test_a_decision_whose_package_is_altered_or_gone_cannot_be_made_again(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It is said which, and the command ends with 5."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    run("models", "activate", place.trees)
    place.alter(place.trees, "policy.yaml")

    told = run("replay", decision)
    assert told.code == 5
    assert told.out.startswith("NOT_REPRODUCIBLE: ")
    assert "policy.yaml was altered" in told.out
    shutil.rmtree(place.state / "bentoml" / "models" / toys.NAME / place.trees)
    shutil.rmtree(place.folder / "shipped" / toys.NAME / place.trees)
    told = run("replay", decision, "--json")
    assert (told.code, told.json()["cause"]) == (5, "package-missing")


def test_a_decision_whose_application_cannot_be_read_cannot_be_made_again(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sealed with a key that is not in force, or erased; of all, only the former is a fault."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", new_encryption_key())
    told = run("replay", ids[0], "--json")
    assert (told.code, told.json()["cause"]) == (5, "input-sealed")
    assert run("replay", "--all").code == 5
    for record_id in ids:
        erase(place, record_id)
    told = run("replay", ids[0], "--json")
    assert (told.code, told.json()["cause"]) == (5, "input-erased")
    assert run("replay", "--all").code == 0


def test_only_decisions_are_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A refusal decided nothing."""
    (refusal,) = decide(place, trees_package, {"age": 5})

    refused(run("replay", refusal), 1, refusal, "refusal")


def test_history_is_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Every decision, by whichever package it was made, and none that is no decision."""
    decide(place, trees_package, toys.RISKY, {"age": 5}, *toys.applications(8))
    decide(place, toys.load_package("linear"), toys.SAFE, toys.RISKY)

    told = run("replay", "--all", "--json")

    assert told.code == 0
    assert told.json()["records"] == 11
    assert told.json()["verdicts"]["MATCH"] == 11
    assert told.json()["candidate"] is None
    assert told.json()["newly"] == {"APPROVE": 0, "REVIEW": 0, "DECLINE": 0}
    text = run("replay", "--all").out
    assert text.startswith(f"{toys.NAME}: 11 decisions replayed in ")
    assert "MATCH: 11" in text
    assert "NOT_REPRODUCIBLE" not in text


def test_history_that_came_out_otherwise_ends_with_5(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """All that is no match goes to the file of changes; one that is erased is nobody's fault."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE, *toys.applications(4))
    erase(place, ids[2])
    changes = place.folder / "changes.jsonl"

    told = run("replay", "--all", "--json", "--changes", str(changes))
    assert told.code == 0
    assert told.json()["not_reproducible"]["input-erased"]["records"] == 1
    (line,) = map(json.loads, changes.read_text(encoding="utf-8").splitlines())
    assert (line["decision_id"], line["cause"]) == (ids[2], "input-erased")
    # What is there already is never written over.
    refused(run("replay", "--all", "--changes", str(changes)), 1, str(changes))

    altered(place, ids[1], log_odds=0.0)
    changes.unlink()
    told = run("replay", "--all", "--changes", str(changes))
    assert told.code == 5
    assert "ENVIRONMENT_CHANGED: 1" in told.out
    assert "input-erased: 1, such as: the application was erased" in told.out
    lines = [json.loads(line) for line in changes.read_text(encoding="utf-8").splitlines()]
    assert {line["decision_id"] for line in lines} == {ids[1], ids[2]}


def test_history_of_a_time_is_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """From one instant on, before another."""
    ids = decide(place, trees_package, *toys.applications(3))
    times = [run("decisions", "show", i, "--json").json()["time"][:-1] for i in ids]

    def number(*options: str) -> int:
        told: int = run("replay", "--all", "--json", *options).json()["records"]
        return told

    assert number("--since", times[1]) == 2
    assert number("--until", times[1]) == 1
    assert number("--since", times[1], "--until", times[2]) == 1
    assert number("--since", "2100-01-01") == 0


def test_a_candidate_policy_names_exactly_what_it_would_change(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """As the policy itself says of each PD; that decisions change is the answer, and no failure."""
    applications = toys.applications(60)
    ids = decide(place, trees_package, *applications)
    policy = documents.read(Policy, milder(place))
    pds = [
        decision.probability_of_default for decision in scoring.decide(trees_package, applications)
    ]
    moved, swapped = set(), set()
    for record_id, pd, application in zip(ids, pds, applications, strict=True):
        before = trees_package.policy.decide(pd, application)
        after = policy.decide(pd, application)
        if before != after:
            moved.add(record_id)
        if before.decision != after.decision:
            swapped.add(record_id)
    changes = place.folder / "changes.jsonl"
    against = ("replay", "--all", "--policy", str(milder(place)))

    told = run(*against, "--json", "--changes", str(changes))

    assert told.code == 0
    lines = [json.loads(line) for line in changes.read_text(encoding="utf-8").splitlines()]
    assert {line["decision_id"] for line in lines} == moved
    assert {line["verdict"] for line in lines} == {"POLICY_CHANGED"}
    result = told.json()
    assert result["verdicts"]["POLICY_CHANGED"] == len(moved) > len(swapped) > 1
    assert {change["decision_id"] for change in result["changed"]} == swapped
    assert result["newly"] == {"APPROVE": len(swapped), "REVIEW": 0, "DECLINE": 0}
    assert result["candidate"]["policy_version"].startswith("2.1.0+")
    text = run(*against, "--limit", "1").out
    assert f"POLICY_CHANGED: {len(moved)}" in text
    assert result["otherwise"]["decision"] == len(swapped)
    assert sum(result["otherwise"].values()) == len(moved)
    assert f"came out otherwise: {len(moved)}\n    another decision: {len(swapped)}\n" in text
    assert f"the same decision, in another band: {result['otherwise']['band']}\n" in text
    assert re.search(rf"^ *REVIEW +{len(swapped)} ", text, re.MULTILINE)
    assert sum(record_id in text for record_id in ids) == 1
    assert len(run(*against, "--json", "--limit", "0").json()["changed"]) == 0


def test_a_candidate_model_brings_its_policy_along(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """For all of history, and for one decision, which is no match then."""
    ids = decide(place, trees_package, toys.RISKY, *toys.applications(5))

    told = run("replay", "--all", "--model", place.linear, "--json")
    assert told.code == 0
    assert told.json()["verdicts"]["MODEL_CHANGED"] == 6
    assert told.json()["candidate"]["model_version"] == place.linear
    assert told.json()["candidate"]["policy_version"].startswith("2.1.0+")
    one = run("replay", ids[0], "--model", place.linear)
    assert one.code == 5
    assert one.out.startswith("MODEL_CHANGED")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bands: no", "version"),
        (toys.POLICY.replace("bicycle-leases", "boat-leases"), "boat-leases"),
        (toys.POLICY.replace("field: price", "field: prize"), "not in the schema"),
        (toys.POLICY.replace("PRICE_ABOVE_LIMIT", "UNHEARD_OF"), "UNHEARD_OF"),
    ],
)
def test_a_candidate_policy_that_cannot_be_one_is_refused(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage, text: str, told: str
) -> None:
    """Before anything is replayed, in one line."""
    decide(place, trees_package, toys.RISKY)
    file = place.folder / "candidate.yaml"
    file.write_text(text, encoding="utf-8")

    refused(run("replay", "--all", "--policy", str(file)), 1, told)


def test_an_altered_record_stops_nothing_else(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """History is replayed, listed and erased without it, and what is told names it."""
    first, second, third = decide(place, trees_package, toys.RISKY, toys.SAFE, toys.RISKY)
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        body = "replace(body, 'probability_of_default', 'odds')"
        database.execute(f"UPDATE records SET body = {body} WHERE id = ?", (second,))  # noqa: S608
        database.execute("UPDATE records SET body = '[' WHERE id = ?", (third,))
        database.commit()

    outcome = run("replay", "--all", "--json")
    assert outcome.code == 5
    assert outcome.json()["verdicts"]["MATCH"] == 1
    assert outcome.json()["not_reproducible"]["record-invalid"]["records"] == 2
    rows = {row["id"]: row for row in run("decisions", "list", "--json").json()}
    assert ["altered" in rows[one] for one in (first, second, third)] == [False, True, True]
    assert run("decisions", "list").out.count("ALTERED") == 2
    alone = run("replay", third)
    assert (alone.code, alone.out) == (1, "")
    assert f"record {third}: it is not as it was written" in alone.err
    assert run("decisions", "erase", second, third, "--reason", "asked for", "--yes").code == 0
    assert run("replay", first).code == 0
