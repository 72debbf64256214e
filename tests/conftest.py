"""What every test may use: the toy portfolio, and toy packages loaded once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import alembic.command
import pytest
from hypothesis import settings

from loadtests import cluster
from tests import migrating, toys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage
    from credit_risk.policy import Policy
    from credit_risk.reasons import ReasonDictionary
    from credit_risk.schema import Schema

# Before SciPy, scikit-learn or XGBoost is imported. Each process that runs tests has a core, and
# threads of theirs would wait for each other, spinning, on cores that others use as well, and take
# several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Same examples on every run, and no limit on how long one takes on a busy machine.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

# For the whole process, as it changes nothing but the time: see there.
alembic.command.upgrade = migrating.upgrade  # type: ignore[assignment]

TESTS = Path(__file__).parent
CORE = {TESTS, TESTS / "audit", TESTS / "evidence"}
"""Folders of the core's own tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and trace what covers the core."""
    for item in items:
        # A tracer makes any Python three times slower, also what it does not look at. The floor of
        # coverage is for the core, and these are not what covers it.
        if item.path.parent not in CORE or item.get_closest_marker("real_data"):
            item.add_marker(pytest.mark.no_cover)
    # A process takes file after file: with a long one at the end, the others wait for it.
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("e2e") or item.get_closest_marker("real_data"):
        return 0
    return 1 if item.path.parent == TESTS / "training" else 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests were started in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[cluster.Cluster]:
    """A PostgreSQL server, for all tests of this process."""
    try:
        cluster.programs()
    except cluster.Missing as missing:
        pytest.skip(str(missing))
    with cluster.running() as running:
        yield running


@pytest.fixture(scope="session")
def emptied(postgresql: cluster.Cluster) -> Iterator[str]:
    """The name of a database of PostgreSQL that is emptied again and again."""
    with postgresql.database() as name:
        yield name


@pytest.fixture
def database(postgresql: cluster.Cluster, emptied: str) -> Iterator[str]:
    """The name of an empty database of PostgreSQL; making each anew takes ten times as long."""
    yield emptied
    postgresql.empty(emptied)


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
