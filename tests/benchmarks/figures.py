"""Made-up measurements for tests of what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peer import PEERS, Peer
from benchmarks.run import Measured
from benchmarks.wrk import Times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.peer import LoadName


def times(rate: float, p50: float = 1.0, p99: float = 2.0) -> Times:
    """One run of wrk."""
    return Times(requests=1_000, rate=rate, p50=p50, p99=p99, generator_share=0.1)


def measured(
    name: str, loads: Mapping[tuple[LoadName, int], Times], largest: float = 200e6
) -> Measured:
    """One round of a server of the repository."""
    one = Measured(Peer(PEERS / name))
    one.times = {key: [value] for key, value in loads.items()}
    one.together, one.largest, one.others = [int(1.5 * largest)], [int(largest)], [0.01]
    return one


def write_peer(folder: Path, name: str, lines: str) -> Peer:
    """A server of our own making."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "peer.yaml").write_text(lines, encoding="utf-8")
    return Peer(path)
