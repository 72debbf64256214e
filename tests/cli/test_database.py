"""`credit-risk database`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from credit_risk.audit.database import REVISION
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    decide,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_the_database_is_told_and_upgraded(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """One that is up to date is left as it is."""
    decide(place, trees_package, toys.RISKY)
    url = f"sqlite:///{place.state / 'records.db'}"

    assert run("database", "status").out == f"{url}\nrevision {REVISION}; up to date\n"
    assert run("database", "status", "--json").json() == {
        "url": url,
        "revision": REVISION,
        "needed": REVISION,
    }
    assert run("database", "upgrade").out == f"revision {REVISION}: nothing to do\n"
    assert run("database", "upgrade", "--json").json() == {"before": REVISION, "after": REVISION}


def test_an_empty_database_is_upgraded(run: Callable[..., Outcome], place: Place) -> None:
    """Somebody made it, and nothing in it yet."""
    place.state.mkdir()
    (place.state / "records.db").touch()

    assert f"no tables yet; this version needs {REVISION}" in run("database", "status").out
    assert run("database", "upgrade").out == f"revision {REVISION} (before: none)\n"
    assert "up to date" in run("database", "status").out
