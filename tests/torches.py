"""What tests of PyTorch's share: it is in an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from credit_risk.training import network
from credit_risk.training.settings import EstimatorName

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

needs_torch = pytest.mark.skipif(
    not network.is_available(),
    reason="PyTorch is not here: `make test-network` installs it",
)


def estimators() -> list[ParameterSet]:
    """Every estimator, to parametrise a test with: a network where PyTorch is."""
    return [
        pytest.param(name, marks=[needs_torch] if name == "neural-network" else [])
        for name in get_args(EstimatorName)
    ]
