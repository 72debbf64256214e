"""Packs to look at, and what is put on record for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credit_risk import package, regimes
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import Record
from credit_risk.decisions import new_id
from credit_risk.evidence import packs
from tests.recorded import NOON

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

ROOT = Path(__file__).parents[2]
REGIMES = ROOT / "regimes"
REGIME = regimes.load(REGIMES, "us-ecoa")
EMPTY = packs.Findings()


def shipped() -> ModelPackage:
    """A real one."""
    folder = ROOT / "packages" / "personal-loans"
    return package.load(folder / (folder / "default").read_text().strip())


def pack(of: ModelPackage, log: SqlAuditLog | None, findings: packs.Findings = EMPTY) -> Any:  # noqa: ANN401 - any JSON
    """What there is to show, having been JSON."""
    found = packs.pack(of, REGIME, "regime's", log, findings, made_at=NOON)
    return json.loads(json.dumps(found, allow_nan=False))


def activation(of: ModelPackage, before: str | None, at: int) -> Record:
    """A record of somebody's switch to a package."""
    return Record(
        id=new_id(),
        kind="activation",
        time=at,
        portfolio=of.portfolio,
        request_id=new_id(),
        model_version=of.version,
        policy_version=of.policy_version,
        decision=None,
        status=None,
        body={"action": "activate", "by": "ops", "from": before, "to": of.version},
    )


def approval(of: Record) -> Record:
    """The record of a review that approved what the server declined."""
    body = {
        "step": 1,
        "action": "close",
        "reviewer": "ada",
        "decision": "APPROVE",
        "override": "low-side",
        "reviewed": "DECLINE",
        "reviewers": ["ada"],
        "reasons": ["COMPENSATING_FACTORS"],
    }
    return replace(of, id=new_id(), kind="review", body=body, about=of.id, personal=None)
