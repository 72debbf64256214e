"""The text of ``GET /metrics``: the workers added up.

Each worker writes its values to files of its own in one folder (prometheus_client's multiprocess
mode), and whichever is asked adds up what is in them. What a dead worker counted stays counted;
what it said of its present state does not.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

logger = logging.getLogger(__name__)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_OF_ONE_WORKER = ("credit_build_info", "credit_model_info")
"""What is as true of one worker as of all."""


def text(own: CollectorRegistry) -> bytes:
    """The metrics of all workers, in Prometheus' text format.

    Once the folder is gone only what holds without the other workers is told: a counter that
    lacks what they counted would look like one that began anew, and rates of it would be made up.
    Missing series are seen, and ``/readyz`` says what is wrong.

    Args:
        own: the registry of the worker that is asked.
    """
    folder = Path(os.environ[FOLDER])
    # Ours is among them from the first moment on, unless somebody took it away.
    if not list(folder.glob(f"*_{os.getpid()}.db")):
        return generate_latest(own.restricted_registry(_OF_ONE_WORKER))
    forget_dead(folder)
    registry = CollectorRegistry()
    _Workers(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _Workers(MultiProcessCollector):
    """The files of a folder of any name; the library takes a name with brackets for a pattern."""

    def collect(self) -> Iterable[Metric]:
        """The metrics of all workers."""
        while True:
            files = [str(path) for path in Path(self._path).glob("*.db") if _is_begun(path)]
            try:
                merged: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
            except FileNotFoundError:  # another worker has just forgotten who wrote one
                continue
            return merged


def forget_dead(folder: Path) -> None:
    """Remove what workers that no longer run said of their present state.

    And files in which nothing was counted: a worker that cannot start is tried again and again, and
    each try leaves some. One that stopped in good order has removed its state itself: of any other
    the log tells.
    """
    dead = set()
    for path in folder.glob("*.db"):
        process = int(path.stem.rpartition("_")[2])
        if _runs(process):
            continue
        with suppress(FileNotFoundError):  # another worker may be at it as well
            if path.name.startswith("gauge_live"):
                path.unlink()
                dead.add(process)
            elif not _is_begun(path) or _counts_nothing(path):
                path.unlink()
    for process in sorted(dead):
        logger.warning("a worker has died", extra={"pid": process})


def _is_begun(path: Path) -> bool:
    """Whether there is anything in a file: the library makes it first, and then gives it its size.

    One whose worker was killed in between stays empty.
    """
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # another worker has just forgotten who wrote it
        return False


def _counts_nothing(path: Path) -> bool:
    values: Iterable[tuple[str, float, float, int]]
    values = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
    return not any(value for _, value, _, _ in values)


def leave() -> None:
    """Remove what this worker said of its present state: it stops."""
    for path in Path(os.environ[FOLDER]).glob(f"gauge_live*_{os.getpid()}.db"):
        path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's process, which came to have the number of one of ours
    return True
