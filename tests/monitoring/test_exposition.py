"""GET /metrics over real processes: prometheus_client chooses its mode when it is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from monitoring import exposition
from monitoring.exposition import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WORKER = """
import logging
import sys
from prometheus_client import CollectorRegistry
from monitoring import exposition
from monitoring.metrics import Metrics
logging.basicConfig(format="%(message)s %(pid)s")
registry = CollectorRegistry()
metrics = Metrics(registry)
metrics.packages.model_info.labels("toys", sys.argv[1], "1", "trees").set(1)
metrics.packages.activation_failures.labels("toys")
metrics.scoring.batch_queue.set(3)
metrics.evidence.records.labels("decision").inc(2)
for line in sys.stdin:
    if line == "leave\\n":
        exposition.leave()
        break
    metrics.evidence.records.labels("decision").inc()
    text = exposition.text(registry)
    print(len(text), flush=True)
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
"""


class Workers:
    """Processes that count on demand, and share one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, version: str) -> subprocess.Popen[bytes]:
        """One more, which says that this version decides."""
        process = subprocess.Popen(  # noqa: S603 - this interpreter, on the program above
            [sys.executable, "-c", WORKER, version],
            cwd=ROOT,
            env={**os.environ, FOLDER: str(self.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """A folder and nobody who writes to it yet; its name would be a pattern to some."""
    folder = tmp_path / "metrics [0-9]*?"
    folder.mkdir()
    started = Workers(folder)
    yield started
    for process in started.processes:
        process.kill()
        process.communicate()


def samples(process: subprocess.Popen[bytes]) -> Counter[tuple[str, str]]:
    """What a worker answers, added up by name and model version; it counts one record before."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    text = process.stdout.read(int(process.stdout.readline()))
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, sample.labels.get("model_version", "")] += int(sample.value)
    return found


def test_a_killed_worker_leaves_its_counts_and_nothing_else(workers: Workers) -> None:
    """What it decided with is no longer deciding."""
    killed, living = workers.start("before"), workers.start("after")
    samples(killed)
    both = samples(living)
    assert both["credit_model_info", "before"] == both["credit_model_info", "after"] == 1
    assert both["credit_batch_queue_rows", ""] == 6
    assert both["credit_records_written_total", ""] == 6

    killed.send_signal(signal.SIGKILL)
    killed.wait()

    left = samples(living)
    assert living.stderr is not None
    assert f"{killed.pid}" in living.stderr.readline().decode()
    assert ("credit_model_info", "before") not in left
    assert left["credit_model_info", "after"] == 1
    assert left["credit_batch_queue_rows", ""] == 3
    assert left["credit_records_written_total", ""] == 7


def test_a_worker_that_stops_in_order_is_forgotten_and_not_mourned(workers: Workers) -> None:
    """It takes what it said of its present state with it, and leaves its counts."""
    stopped, living = workers.start("before"), workers.start("after")
    samples(stopped)
    stopped.communicate(b"leave\n")

    left = samples(living)

    assert ("credit_model_info", "before") not in left
    assert left["credit_records_written_total", ""] == 6
    _, said = living.communicate()
    assert said == b""


def written(path: Path, **values: float) -> None:
    """A file of counters, as the library makes them."""
    with closing(MmapedDict(str(path))) as file:  # type: ignore[no-untyped-call]
        for name, value in values.items():
            key = mmap_key(name, f"{name}_total", [], [], "What is counted.")
            file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]


def test_a_file_that_a_worker_has_only_begun_spoils_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty for a moment, and for ever if its worker is killed in that moment."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written(tmp_path / f"counter_{os.getpid()}.db", one=2.0)
    (tmp_path / f"counter_{os.getppid()}.db").touch()

    assert b"one_total 2.0" in exposition.text(CollectorRegistry())


def test_tries_to_start_leave_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of workers that died before they counted anything; what was counted stays."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    own, other = os.getpid(), os.getppid()
    written(tmp_path / f"counter_{own}.db", one=0.0)
    written(tmp_path / f"counter_{other}.db", one=0.0)
    written(tmp_path / f"counter_{ended.pid}.db", one=3.0, two=0.0)
    written(tmp_path / f"gauge_max_{ended.pid}.db", three=0.0)
    (tmp_path / f"histogram_{ended.pid}.db").touch()

    text = exposition.text(CollectorRegistry())

    assert b"one_total 3.0" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        f"counter_{process}.db" for process in (own, other, ended.pid)
    }


@pytest.mark.parametrize("made_again", [False, True])
def test_without_its_folder_only_what_needs_no_adding_up_is_told(
    workers: Workers,
    made_again: bool,  # noqa: FBT001 - a case
) -> None:
    """No counter falls, and no rate is made up of one that did."""
    worker = workers.start("one")
    assert samples(worker)["credit_records_written_total", ""] == 3
    for path in workers.folder.iterdir():
        path.unlink()
    if not made_again:
        workers.folder.rmdir()

    assert samples(worker) == {("credit_model_info", "one"): 1}
