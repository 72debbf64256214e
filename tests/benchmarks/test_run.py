"""One run: what is compared with what, and what is left out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import collector, run
from benchmarks.process import DidNotStart
from benchmarks.run import Plan, WrongAnswer
from tests.benchmarks.figures import measured, times, write_peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.model import Material

ENDS = "title: ends\ncommand: [python, -c, 'raise SystemExit(3)']\npath: /\nloads: {predict: [1]}\n"
ALWAYS_HALF = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"probability_of_default": 0.5}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    """Two rounds, told to nobody."""
    with collector.collecting() as taking:
        yield Plan(tmp_path, rounds=2, seconds=1, collector=taking, say=lambda _: None)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[0.1], [0.2, 0.300002]], "request 1: a PD is not the pipeline's"),
        ([[float("nan")], [0.2, 0.3]], "request 0: a PD is not the pipeline's"),
        ([[0.1], [0.2]], "request 1: 1 results for 2 rows"),
    ],
)
def test_a_wrong_answer_is_named_by_its_request(answers: list[list[float]], message: str) -> None:
    """Another PD, none, or too few."""
    with pytest.raises(WrongAnswer, match=message):
        run.check(answers, [[0.1], [0.2, 0.3]])


def test_answers_may_differ_in_the_seventh_decimal() -> None:
    """XGBoost adds up in float32; this server does not."""
    run.check([[0.1], [0.2, 0.3000005]], [[0.1], [0.2, 0.3]])


def test_the_median_of_rounds_counts() -> None:
    """And what was not measured has none."""
    one = measured("fastapi", {("predict", 1): times(100.0, p50=5.0, p99=50.0)})
    one.times["predict", 1] += [times(300.0, p50=1.0, p99=10.0), times(200.0, p50=2.0, p99=90.0)]

    assert one.rate("predict", 1) == 200.0
    assert (one.p50("predict", 1), one.p99("predict", 1)) == (2.0, 50.0)
    assert one.rate("predict", 32) is None


def test_a_server_that_does_not_start_is_left_out_with_its_reason(
    tmp_path: Path, plan: Plan, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried again in the next round; one not installed is not tried at all."""
    ends = write_peer(tmp_path, "ends", ENDS + "package: other\n")
    monkeypatch.setattr(type(ends), "bin", tmp_path)
    (tmp_path / "python").symlink_to(sys.executable)
    absent = write_peer(tmp_path, "absent", ENDS + "package: other\n")
    for one in (ends, absent):
        (one.folder / "requirements.txt").write_text("other==1\n", encoding="utf-8")

    found = run.compare(plan, [ends, absent], material, {"absent": "no such package"})

    assert [one.failure for one in found] == [
        "ends did not start: it ended with exit code 3\n",
        "no such package",
    ]
    assert all(one.times == {} and not one.wrong for one in found)


def test_a_server_that_answers_otherwise_is_left_out_as_wrong(
    tmp_path: Path, plan: Plan, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ran it learns of that from the exit code."""
    lines = (
        "title: same\npackage: other\ncommand: [python, '{here}/server.py', '{port}']\n"
        "path: /\nloads: {predict: [1]}\n"
    )
    same = write_peer(tmp_path, "same", lines)
    (same.folder / "server.py").write_text(ALWAYS_HALF, encoding="utf-8")
    (same.folder / "requirements.txt").write_text("other==1\n", encoding="utf-8")
    monkeypatch.setattr(type(same), "bin", tmp_path)
    (tmp_path / "python").symlink_to(sys.executable)

    (found,) = run.compare(plan, [same], material, {})

    assert found.failure == "same: predict: request 0: a PD is not the pipeline's"
    assert found.wrong
    assert found.times == {}


def test_without_this_server_there_is_nothing_to_compare(
    tmp_path: Path, plan: Plan, material: Material
) -> None:
    """If it does not start, the run ends."""
    ours = write_peer(tmp_path, "ours", ENDS)

    with pytest.raises(DidNotStart, match="ours did not start"):
        run.compare(plan, [ours], material, {})
