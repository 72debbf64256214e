"""What tests of training share."""

from __future__ import annotations

import pytest

from credit_risk.training import plots


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards without their plots, which take longest where there are few rows to learn from."""
    monkeypatch.setattr(plots, "png", lambda _figure: b"")
