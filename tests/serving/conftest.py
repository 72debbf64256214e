"""A server in the tests' own process, for the tests of what it answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests import served
from tests.served import Active, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage


@pytest.fixture(scope="module")
def long_lived(
    trees_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server for many requests; making a database for each would take longest."""
    with served.serving(trees_package, tmp_path_factory.mktemp("long-lived")) as running:
        yield running


@pytest.fixture
def server(
    long_lived: Served, trees_package: ModelPackage, caplog: pytest.LogCaptureFixture
) -> Served:
    """A server of the toy trees that has answered nothing yet."""
    caplog.set_level(logging.INFO, "credit_risk.requests")
    return Served(Active(trees_package), long_lived.audit, long_lived.settings)
