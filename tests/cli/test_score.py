"""`credit-risk score`."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from credit_risk import bulk
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    leases_file,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_score_decides_about_each_row_of_a_file(place: Place, run: Callable[..., Outcome]) -> None:
    """With the package that decides or the one named; the rows that cannot be are counted."""
    source, output = str(leases_file(place)), place.folder / "out.csv"

    done = run("score", source, str(output), "--keep", "lease", "--reasons")
    linear = run(
        "score", source, str(place.folder / "linear.csv"), "--model-version", place.linear, "--json"
    ).json()

    assert done.code == 0
    assert f"{toys.NAME} {place.trees}: 2 of 3 rows scored" in done.out
    assert "DECLINE: 1" in done.out
    assert "not scored: 1" in done.out
    rows = output.read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[1] for row in rows] == ['"lease"', '"L0"', '"L1"', '"L2"']
    assert "INCOME_INSUFFICIENT" in rows[3]
    assert (linear["model_version"], linear["scored"], linear["refused"]) == (place.linear, 2, 1)
    line = json.loads((place.folder / "out.csv.errors.jsonl").read_text(encoding="utf-8"))
    assert line == {
        "row": 1,
        "pointer": "/age",
        "detail": "Input should be greater than or equal to 18",
    }


def test_score_says_in_one_line_why_it_will_not(place: Place, run: Callable[..., Outcome]) -> None:
    """An output that exists, an unknown column under --strict, a package that is not there."""
    source, output = str(leases_file(place)), place.folder / "out.csv"
    output.touch()

    refused(run("score", source, str(output)), 1, "exists")
    refused(run("score", source, f"{output}.csv", "--strict"), 1, "unknown columns: lease")
    refused(run("score", source, f"{output}.csv", "--model-version", "0" * 12), 3, "0" * 12)


def test_score_without_a_row_scored_has_failed(place: Place, run: Callable[..., Outcome]) -> None:
    """Its output is there, and says why; a file without rows has nothing to fail of."""
    source = leases_file(place)
    header, _, second, _ = source.read_text(encoding="utf-8").splitlines()
    source.write_text(f"{header}\n{second}\n", encoding="utf-8")

    done = run("score", str(source), str(place.folder / "out.csv"), "--json")

    assert done.code == 1
    assert (done.json()["rows"], done.json()["scored"]) == (1, 0)
    assert "no row of" in done.err
    assert "out.csv.errors.jsonl" in done.err
    source.write_text(f"{header}\n", encoding="utf-8")
    assert run("score", str(source), str(place.folder / "none.csv")).code == 0


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_score_that_is_stopped_says_how_it_goes_on(
    sent: signal.Signals,
    code: int,
    place: Place,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Ctrl-C does; what stops a process otherwise is as before it."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(bulk, "score_file", lambda *_, **__: signal.raise_signal(sent))

    stopped = run("score", str(leases_file(place)), str(place.folder / "out.csv"))

    assert stopped.code == code
    assert "interrupted: the same command goes on where it was" in stopped.err
    assert signal.getsignal(signal.SIGTERM) == before
