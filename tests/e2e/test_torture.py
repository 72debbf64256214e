"""Real servers killed, and their database taken away, under load: see `loadtests.torture`."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from loadtests import torture

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.cluster import Cluster
    from loadtests.torture import Load, Replica

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("KILLS", "1"))
"""How often, on each database; see `make test-long`."""


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that leave the servers some of the machine, to start again on."""
    monkeypatch.setattr(torture, "PAUSE_SECONDS", 0.02)


def enough(load: Load) -> None:
    """Wait until there is something to lose."""
    while len(load.tally.decided) <= 200:
        time.sleep(0.01)


def check(replicas: list[Replica], load: Load) -> None:
    """Nothing was lost, doubled or wrong."""
    assert torture.faults(load.tally, torture.recorded(replicas[0].settings)) == []
    assert torture.unwhole(replicas[0].settings) == []


def test_servers_killed_on_sqlite_lose_no_decision(tmp_path: Path) -> None:
    """At random moments, with both workers and whatever they are about."""
    with torture.served(tmp_path, None) as (replicas, load):
        torture.killed(replicas, load, KILLS, random.Random(1))  # noqa: S311 - no secret
        enough(load)
    check(replicas, load)
    assert load.tally.cut > 0


def test_replicas_on_postgresql_lose_no_decision_to_kills_and_outages(
    tmp_path: Path, postgresql: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one database: each comes back by itself, whatever happens to either."""
    monkeypatch.setattr(torture, "OUTAGE_SECONDS", 1.0)
    url = postgresql.url(database)
    with torture.served(tmp_path, url, replicas=2, workers=1) as (replicas, load):
        torture.killed(replicas, load, KILLS, random.Random(1))  # noqa: S311 - no secret
        for disturb in torture.DISTURBANCES.values():
            seen = torture.outage(replicas[0].url, load, partial(disturb, postgresql))
            assert "records: " in seen.reason
        enough(load)
    check(replicas, load)
    assert load.tally.cut > 0
    assert load.tally.statuses[503] > 0
