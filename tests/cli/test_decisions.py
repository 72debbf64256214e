"""`credit-risk decisions`: what is on record is found, shown and erased."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tests import toys
from tests.commands import (
    ROOT,
    Outcome,
    Place,
    decide,
    decide_in,
    listed,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_a_record_is_shown_whole(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """As JSON, or as a list of its fields."""
    decision, refusal = decide(place, trees_package, toys.RISKY, {"age": 5})

    shown = run("decisions", "show", decision, "--json").json()
    assert shown["id"] == decision
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown["time"])
    assert shown["decision"] == "DECLINE"
    assert shown["personal"] == {"input": toys.RISKY}
    assert shown["body"]["package_sha256"] == trees_package.digest
    text = run("decisions", "show", decision).out
    for told in (decision, "DECLINE", "VERY_HIGH", "probability_of_default", trees_package.version):
        assert told in text
    assert run("decisions", "show", refusal, "--json").json()["status"] == 422


def test_decisions_are_listed_the_newest_first(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Other records only where they are asked for."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5}, toys.SAFE)

    assert listed(run) == [ids[2], ids[0]]
    assert listed(run, "--all") == ids[::-1]
    assert listed(run, "--kind", "refusal") == [ids[1]]
    assert listed(run, "--kind", "failure") == []
    run("models", "activate", place.linear)
    (activation,) = listed(run, "--kind", "activation")
    assert listed(run, "--all") == [activation, *ids[::-1]]


def test_decisions_are_filtered(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
) -> None:
    """By outcome, by package, by portfolio, and by several at once."""
    risky, safe = decide(place, trees_package, toys.RISKY, toys.SAFE)
    (other,) = decide(place, linear_package, toys.RISKY)

    assert listed(run, "--decision", "DECLINE") == [other, risky]
    assert listed(run, "--decision", "APPROVE") == [safe]
    assert listed(run, "--decision", "REVIEW") == []
    assert listed(run, "--model-version", linear_package.version) == [other]
    both = ("--decision", "DECLINE", "--model-version", trees_package.version)
    assert listed(run, *both) == [risky]


def test_records_outlive_their_portfolio(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A product that is sold no longer was decided about; one that never was is unknown."""
    (risky,) = decide(place, trees_package, toys.RISKY)
    (place.folder / "portfolios" / toys.NAME).rename(place.folder / "portfolios" / "new-leases")

    assert listed(run) == [risky]
    assert listed(run, "--portfolio", "new-leases") == []
    refused(run("decisions", "list", "--portfolio", "another"), 3, "(there are: new-leases)")


def test_decisions_are_listed_page_by_page(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Each page continues after the last id of the one before."""
    ids = decide(place, trees_package, *[toys.SAFE] * 5)[::-1]

    pages = [listed(run, "--limit", "2")]
    while pages[-1]:
        pages.append(listed(run, "--limit", "2", "--before", pages[-1][-1]))

    assert pages == [ids[:2], ids[2:4], ids[4:], []]


def test_decisions_are_found_by_time(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """To the microsecond: the first instant belongs to the range, the last does not."""
    ids = decide(place, trees_package, *[toys.SAFE] * 3)
    rows = {row["id"]: row["time"] for row in run("decisions", "list", "--json").json()}
    middle = rows[ids[1]]
    assert rows[ids[0]] < middle < rows[ids[2]]

    assert listed(run, "--since", middle) == [ids[2], ids[1]]
    assert listed(run, "--until", middle) == [ids[0]]
    assert listed(run, "--since", middle, "--until", rows[ids[2]]) == [ids[1]]
    assert listed(run, "--since", middle.removesuffix("Z")) == [ids[2], ids[1]]
    moment = datetime.fromisoformat(middle)
    in_tokyo = moment.astimezone(timezone(timedelta(hours=9))).isoformat()
    assert run("decisions", "list", "--since", in_tokyo, "--until", middle[:-1]).code == 2
    assert listed(run, "--since", in_tokyo) == [ids[2], ids[1]]
    after = (moment + timedelta(microseconds=1)).isoformat()
    assert listed(run, "--since", after) == [ids[2]]


def test_no_terminal_is_too_narrow_for_what_is_to_be_copied(
    place: Place, trees_package: ModelPackage
) -> None:
    """Ids, digests and paths are whole and on one line, whatever the width."""
    long = place.state / ("long" * 30)
    (decision,) = decide_in(long, trees_package, toys.RISKY)
    environment = os.environ | {"COLUMNS": "40", "STATE_DIR": str(long)}

    def told(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "credit_risk.cli", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    record = told("decisions", "show", decision)
    for value in (decision, trees_package.digest, json.dumps(toys.RISKY)):
        assert re.search(rf"^\w+ +{re.escape(value)}$", record, re.MULTILINE)
    assert f" {decision} " in told("decisions", "list")
    assert f" {place.trees} " in told("models", "list")
    assert f"\nCREDIT_RISK_STATE_DIR={long}\n" in told("settings")


def test_a_list_never_cuts_an_id(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It is there to be copied, and a pipe has no width."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5})

    lines = run("decisions", "list", "--all").out.splitlines()

    assert lines[0].split() == ["id", "time", "kind", "status", "decision", "PD", "model"]
    refusal, decision = (line.split() for line in lines[1:])
    assert decision[0] == ids[0]
    assert decision[2:5] == ["decision", "200", "DECLINE"]
    assert decision[5:] == ["0.9707", trees_package.version]
    assert refusal[0] == ids[1]
    assert refusal[2:] == ["refusal", "422", trees_package.version]


def test_a_person_is_erased_once_it_is_said_twice(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Without --yes nothing is done; afterwards the application is gone and the decision there."""
    risky, safe = decide(place, trees_package, toys.RISKY, toys.SAFE)
    command = ("decisions", "erase", risky, "--reason", "asked for")

    looked = run(*command)
    assert (looked.code, looked.err) == (0, "nothing is erased yet: --yes does it\n")
    assert re.search(rf"{risky} +decision +1 record *\n", looked.out)
    assert run("decisions", "show", risky, "--json").json()["withheld"] is None
    assert listed(run, "--kind", "erasure") == []

    done = run(*command, "--yes", "--json").json()
    assert (done["erased"], done["files_overwritten"]) == (True, True)
    assert done["records"] == [
        {"id": risky, "kind": "decision", "state": "readable", "records": [risky]}
    ]
    shown = run("decisions", "show", risky, "--json").json()
    assert (shown["personal"], shown["withheld"], shown["decision"]) == (None, "erased", "DECLINE")
    assert run("decisions", "show", safe, "--json").json()["personal"] == {"input": toys.SAFE}
    assert "NOT_REPRODUCIBLE" in run("replay", risky).out
    (erasure,) = listed(run, "--kind", "erasure")
    assert run("decisions", "show", erasure, "--json").json()["about"] == risky

    again = run(*command, "--yes")
    assert again.code == 0
    assert re.search(rf"{risky} +decision +nothing: erased before *\n", again.out)
    assert listed(run, "--kind", "erasure") == [erasure]


def test_ids_to_erase_may_come_in_a_file(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """One a line; a mistake in it stops all."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5})
    file = place.folder / "ids"
    file.write_text("\n".join(["", *ids, "", "0193"]), encoding="ascii")
    command = ("decisions", "erase", "--ids-file", str(file), "--reason", "asked for", "--yes")
    refused(run(*command), 3, "no record has the id 0193; nothing was erased")
    assert run("decisions", "show", ids[0], "--json").json()["withheld"] is None

    file.write_text("\n".join(ids), encoding="ascii")
    assert "1 record" in run(*command).out
    assert [run("decisions", "show", i, "--json").json()["withheld"] for i in ids] == ["erased"] * 2
    file.write_bytes(b"\xff")
    refused(run(*command), 1, "one a line")
    refused(run("decisions", "erase", "--ids-file", "/nowhere/ids", "--reason", "x"), 3, "/nowhere")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--reason", "x"), "give the ID"), (("0193", "--reason", " "), "--reason is empty")],
)
def test_an_erasure_of_nothing_or_for_nothing_is_wrong_usage(
    run: Callable[..., Outcome], arguments: tuple[str, ...], told: str
) -> None:
    """Before any database is opened."""
    outcome = run("decisions", "erase", *arguments)

    assert outcome.code == 2
    assert told in " ".join(outcome.err.split())
