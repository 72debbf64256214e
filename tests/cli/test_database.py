"""`credit-risk database`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
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

    told = f"the record database is up to date (schema revision {REVISION})"
    assert run("database", "status").out == f"{url}\n{told}\n"
    assert run("database", "status", "--json").json() == {
        "url": url,
        "state": "current",
        "revision": REVISION,
        "needed": REVISION,
        "told": told,
    }
    assert run("database", "upgrade").out == f"revision {REVISION}: nothing to do\n"
    assert run("database", "upgrade", "--json").json() == {"before": REVISION, "after": REVISION}


def test_an_empty_database_is_upgraded(run: Callable[..., Outcome], place: Place) -> None:
    """Somebody made it, and nothing in it yet."""
    place.state.mkdir()
    (place.state / "records.db").touch()

    assert "has no tables yet: the first server makes them" in run("database", "status").out
    assert run("database", "upgrade").out == f"revision {REVISION} (before: none)\n"
    assert "up to date" in run("database", "status").out


def test_tables_without_a_revision_get_it_and_the_records_are_as_before(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """What status and every other command say to do is what helps."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    with closing(sqlite3.connect(place.state / "records.db")) as database, database:
        database.execute("DROP TABLE alembic_version")

    told = run("decisions", "list")
    assert told.code == 4
    assert "run `credit-risk database upgrade`, which writes it down" in told.err
    assert told.err.removeprefix("error: ") in run("database", "status").out
    assert run("database", "upgrade").out == f"revision {REVISION} (before: none)\n"
    assert run("decisions", "show", decision).code == 0
    assert "up to date" in run("database", "status").out
