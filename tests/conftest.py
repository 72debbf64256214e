"""What every test may use: the toy portfolio, and toy packages loaded once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from loadtests import cluster
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.package import ModelPackage
    from credit_risk.policy import Policy
    from credit_risk.reasons import ReasonDictionary
    from credit_risk.schema import Schema

# Before XGBoost or scikit-learn is imported: their threads sleep while they wait for each other.
# Spinning, as is the default, two of them on cores that others use as well take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Same examples on every run, and no limit on how long one takes on a busy machine.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[cluster.Cluster]:
    """A PostgreSQL server, for all tests of this process."""
    try:
        cluster.programs()
    except cluster.Missing as missing:
        pytest.skip(str(missing))
    with cluster.running() as running:
        yield running


@pytest.fixture
def database(postgresql: cluster.Cluster) -> Iterator[str]:
    """The name of a new, empty database of PostgreSQL."""
    with postgresql.database() as name:
        yield name


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    running: cluster.Cluster = request.getfixturevalue("postgresql")
    return running.url(request.getfixturevalue("database"))


@pytest.fixture(scope="session")
def schema() -> Schema:
    """The toy portfolio's schema."""
    return toys.schema()


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The toy portfolio's policy."""
    return toys.policy()


@pytest.fixture(scope="session")
def reasons() -> ReasonDictionary:
    """The toy portfolio's approved reasons."""
    return toys.reasons()


@pytest.fixture(scope="session")
def trees_package() -> ModelPackage:
    """The toy package that holds trees."""
    return toys.load_package("trees")


@pytest.fixture(scope="session")
def linear_package() -> ModelPackage:
    """The toy package that holds a linear model."""
    return toys.load_package("linear")


@pytest.fixture(params=toys.KINDS)
def any_package(request: pytest.FixtureRequest) -> ModelPackage:
    """Each toy package in turn."""
    loaded: ModelPackage = request.getfixturevalue(f"{request.param}_package")
    return loaded
