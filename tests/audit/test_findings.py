"""Findings: as people read them."""

from __future__ import annotations

from credit_risk.audit.findings import Finding


def test_a_finding_reads_as_a_line() -> None:
    """Kind, place, id and what it is."""
    assert str(Finding("changed", 5, 5, "id", "why")) == "changed: record 5 (id): why"
    assert str(Finding("removed", 5, 6, None, "why")) == "removed: records 5 to 6: why"
    assert str(Finding("checkpoint", 2, 2, None, "why")) == "checkpoint: checkpoint 2: why"
    assert str(Finding("head", None, None, None, "why")) == "head: why"
