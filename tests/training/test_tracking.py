"""Tracking where there is none; with MLflow it is tried by the tests of the real registry."""

from __future__ import annotations

import sys

import pytest

from credit_risk.errors import RegistryUnavailable
from credit_risk.training import tracking


def test_without_an_address_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of MLflow is imported, which takes seconds."""
    monkeypatch.setenv(tracking.URI, "")
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with tracking.begun("bicycle-leases", "train") as run:
        assert run is None


def test_tracking_without_mlflow_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says how to get it."""
    monkeypatch.setenv(tracking.URI, "https://ada:secret@mlflow.example")
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)

    with (
        pytest.raises(RegistryUnavailable, match="make install-tracking") as caught,
        tracking.begun("bicycle-leases", "train"),
    ):
        pytest.fail("the block was begun")
    assert "secret" not in str(caught.value)


def test_figures_get_names_that_mlflow_takes() -> None:
    """Dotted, as deep as they lie; what is no single value is left out."""
    nested = {"bins": [1, 2], "hold_out": {"roc_auc": 0.9, "ks": None}, "dropped": {"a, b <1": 3}}

    assert list(tracking.flat(nested)) == [("hold_out.roc_auc", 0.9), ("dropped.a_ b _1", 3)]
