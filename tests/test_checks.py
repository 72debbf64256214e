"""Checks of whether to retrain: on record, and decided on by one person."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from credit_risk import checks
from credit_risk.audit import erasure
from credit_risk.audit.log import SqlAuditLog
from credit_risk.checks import Judgement
from credit_risk.decisions import Call
from credit_risk.errors import Conflict, RecordNotFound
from tests import toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

CALL = Call("/monitor/retraining-check", "r-1", at=NOON)
SAID = Judgement("ada", "KEEP", "A campaign; it ends this month.")


def test_a_check_is_decided_on_once(any_url: str, trees_package: ModelPackage) -> None:
    """Of two at the same moment, one is refused; what stands is shown."""
    found = {"portfolio": toys.NAME, "model_version": trees_package.version, "verdict": "WATCH"}
    with closing(SqlAuditLog(any_url, SEALING)) as log:

        async def two() -> list[object]:
            made = await checks.record(log, trees_package, found, CALL)
            assert checks.shown(log, toys.NAME, made["check_id"]) == made
            both = (checks.decide(log, made, SAID, CALL), checks.decide(log, made, SAID, CALL))
            return [made, *await asyncio.gather(*both, return_exceptions=True)]

        made, *results = asyncio.run(two())
        assert isinstance(made, dict)
        (refused,) = [result for result in results if isinstance(result, Conflict)]
        (stands,) = [result for result in results if result is not refused]
        assert checks.shown(log, toys.NAME, made["check_id"]) == stands
        assert log.count(kind="retraining-decision") == 1

        (decision,) = log.find(kind="retraining-decision")
        erasure.erase(log, log, [decision.id], by="c", reason="r", progress=lambda *_: None)
        shown = checks.shown(log, toys.NAME, made["check_id"])
        assert (shown["decided"]["decision"], shown["decided"]["note"]) == ("KEEP", None)


def test_nothing_else_is_a_check(any_url: str, trees_package: ModelPackage) -> None:
    """A decision, one of another portfolio, and what was never recorded."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        (decision,) = decided(trees_package, [toys.SAFE])
        log.append([decision]).result()
        made = asyncio.run(checks.record(log, trees_package, {}, CALL))

        for portfolio, one in (
            (toys.NAME, decision.id),
            ("tricycle-leases", made["check_id"]),
            (toys.NAME, "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"),
            (toys.NAME, "x"),
        ):
            with pytest.raises(RecordNotFound):
                checks.shown(log, portfolio, one)
