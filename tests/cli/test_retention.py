"""`credit-risk retention`."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit.log import open_log
from credit_risk.audit.records import Record
from credit_risk.cli import retention as cli_retention
from credit_risk.decisions import new_id
from credit_risk.settings import Settings
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    decide,
    listed,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo
    from typing import Self

    from credit_risk.package import ModelPackage


OLD = Record(
    id="",
    kind="decision",
    time=0,
    portfolio=toys.NAME,
    request_id="request",
    model_version=None,
    policy_version=None,
    decision="APPROVE",
    status=200,
    body={},
)


def test_retention_reports_before_it_takes(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By portfolio and kind; and takes only what is older than 25 months."""
    (young,) = decide(place, trees_package, toys.SAFE)
    long_ago = int((datetime.now(UTC) - timedelta(days=31 * 26)).timestamp() * 1e6)
    aged = [replace(OLD, id=new_id(), time=long_ago + i) for i in range(2)]
    with closing(open_log(Settings())) as log:
        log.append(aged).result()
    hold = place.folder / "hold"
    hold.write_text(aged[0].id, encoding="ascii")

    looked = run("retention")
    assert (looked.code, looked.err) == (0, "nothing is taken yet: --delete --yes does it\n")
    assert looked.out.startswith("older than 25 months, so before 20")
    assert re.search(rf"{toys.NAME} +decision +2 +due ", looked.out)
    for half in (("--delete",), ("--yes",)):
        assert run("retention", *half, "--json").json()["deleted"] is False
    assert run("decisions", "show", aged[1].id).code == 0

    done = run("retention", "--delete", "--yes", "--hold", str(hold), "--json").json()
    assert (done["months"], done["taken"], done["deleted"]) == (25, {"decision": 1}, True)
    assert [(row["state"], row["number"]) for row in done["records"]] == [("due", 1), ("held", 1)]
    refused(run("decisions", "show", aged[1].id), 3, "was taken by retention")
    assert listed(run) == [young, aged[0].id]
    last = run("retention", "--delete", "--yes")
    assert last.out.endswith("records taken: 1\n")
    assert listed(run) == [young]


def test_a_clock_that_the_records_give_the_lie_takes_nothing(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless somebody says that it is right, which is put on record."""
    (decision,) = decide(place, trees_package, toys.SAFE)
    later = datetime.now(UTC) + timedelta(days=31 * 30)

    class Ahead(datetime):
        """A clock that is months ahead."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            """What it says."""
            return cls.fromtimestamp(later.timestamp(), tz)

    monkeypatch.setattr(cli_retention, "datetime", Ahead)

    assert "note: by the records, the clock may be ahead: nothing is on" in run("retention").err
    told = f"until now, {later:%Y-%m-%d}. Once it is known to be right, --trust-clock takes them"
    refused(run("retention", "--delete", "--yes"), 1, "the clock may be ahead", told)
    assert listed(run) == [decision]

    done = run("retention", "--delete", "--yes", "--trust-clock", "--json").json()
    assert (done["taken"], len(done["clock"])) == ({"decision": 1}, 1)
    (record,) = run("decisions", "list", "--kind", "retention", "--json").json()
    assert record["body"]["trust_clock"] is True


def test_what_an_earlier_retention_held_is_told(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A hold is of one run: whoever leaves it out the next time has to know."""
    decide(place, trees_package, toys.SAFE)
    long_ago = int((datetime.now(UTC) - timedelta(days=31 * 26)).timestamp() * 1e6)
    aged = [replace(OLD, id=new_id(), time=long_ago + i) for i in range(3)]
    with closing(open_log(Settings())) as log:
        log.append(aged).result()
    hold = place.folder / "hold"
    hold.write_text(f"{aged[0].id}\n{aged[1].id}\n", encoding="ascii")
    held = run("retention", "--delete", "--yes", "--hold", str(hold), "--json").json()
    assert (held["held_before"], held["taken"]) == (0, {"decision": 1})

    hold.write_text(aged[0].id, encoding="ascii")
    assert run("retention", "--hold", str(hold), "--json").json()["held_before"] == 1
    assert "2 of what is due was held by an earlier retention" in run("retention").err


def test_the_period_is_the_settings_or_the_regimes(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A regime without a number has the usual one."""
    decide(place, trees_package, toys.SAFE)
    monkeypatch.setenv("CREDIT_RISK_REGIME", "eu-consumer-credit")
    assert run("retention", "--json").json()["months"] == 25
    monkeypatch.setenv("CREDIT_RISK_RETENTION_MONTHS", "72")
    assert run("retention", "--json").json()["months"] == 72
