"""What a package shows of itself is in its files."""

from __future__ import annotations

from credit_risk.audit.log import SqlAuditLog
from tests.evidence.packing import pack, shipped


def test_a_package_alone_shows_what_is_in_it(log: SqlAuditLog) -> None:
    """Figures of the shipped package, with the digests of the files they are from."""
    of = shipped()
    topics = pack(of, log)["topics"]

    shown = {name for name, topic in topics.items() if topic["missing"] is None}
    assert shown == {
        *("model-card", "data-provenance", "performance", "calibration", "reasons-method"),
        *("policy", "regime"),
    }
    (first, _) = topics["performance"]["statements"]
    assert f"ROC-AUC {of.metrics['hold_out']['roc_auc']:.4f}" in first["text"]
    assert first["sha256"] == of.digests["metrics.json"]
    assert len(topics["policy"]["tables"][0]["rows"]) == len(of.policy.bands)
    assert any("They came out" in s["text"] for s in topics["reasons-method"]["statements"])
