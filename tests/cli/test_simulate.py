"""`credit-risk simulate`."""

from __future__ import annotations

import csv
import json
import signal
from itertools import count
from typing import TYPE_CHECKING

import pyarrow.parquet
import pytest

from credit_risk import simulation
from credit_risk.cli import simulate
from tests import toys
from tests.answering import answering, decided
from tests.commands import Outcome, Place, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCENARIOS = f"""\
portfolio: {toys.NAME}
scenarios:
  - name: dear
    title: Prices double
    changes:
      - {{field: price, scale: 2}}
"""


@pytest.fixture(autouse=True)
def _scenarios(place: Place) -> None:
    """The toys have one scenario besides the stable one."""
    path = place.folder / "portfolios" / toys.NAME / simulation.FILE
    path.write_text(SCENARIOS, encoding="utf-8")


def test_applicants_go_to_standard_output_as_json_lines(run: Callable[..., Outcome]) -> None:
    """Nothing else does, and the same ones every time."""
    done, again = run("simulate", "--rows", "5"), run("simulate", "--rows", "5")

    assert (done.code, done.err) == (0, "")
    assert again.out == done.out
    applications = [json.loads(line) for line in done.out.splitlines()]
    assert len(applications) == 5
    for application in applications:
        assert toys.schema().validate_application(application) == application
    assert run("simulate", "--rows", "5", "--seed", "2").out != done.out
    assert len(run("simulate").out.splitlines()) == simulate.ROWS


def test_the_three_formats_hold_the_same_applicants(
    place: Place, run: Callable[..., Outcome]
) -> None:
    """Missing values are null, or an empty cell."""
    outputs = [place.folder / f"out.{suffix}" for suffix in ("jsonl", "csv", "parquet")]
    for output in outputs:
        assert run("simulate", str(output), "--rows", "300").code == 0

    lines = outputs[0].read_text(encoding="utf-8").splitlines()
    applications = [json.loads(line) for line in lines]
    with outputs[1].open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert pyarrow.parquet.read_table(outputs[2]).to_pylist() == applications
    assert [dict.fromkeys(row, None) | row for row in cells] == [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in applications
    ]
    assert run("simulate", "--rows", "300", "--format", "csv").out == outputs[1].read_text()


def test_a_file_made_up_is_scored_but_for_what_is_to_be_refused(
    place: Place, run: Callable[..., Outcome]
) -> None:
    """Exactly as many rows as were spoilt, in each format that is scored."""
    for suffix in ("csv", "parquet"):
        made, output = place.folder / f"in.{suffix}", place.folder / f"out.{suffix}"
        told = run("simulate", str(made), "--rows", "200", "--invalid", "0.1", "--json").json()
        scored = run("score", str(made), str(output), "--json").json()

        assert 5 < told["invalid"] < 40
        assert (scored["rows"], scored["refused"]) == (200, told["invalid"])


def test_a_scenario_says_what_it_moved(place: Place, run: Callable[..., Outcome]) -> None:
    """Against what chance alone exceeds in one of twenty samples."""
    told = run("simulate", str(place.folder / "dear.csv"), "--scenario", "dear", "--json").json()
    shown = run("simulate", str(place.folder / "dear.jsonl"), "--scenario", "dear").out

    assert (told["portfolio"], told["model_version"]) == (toys.NAME, place.trees)
    assert (told["rows"], told["seed"], told["moves"]) == (1_000, 1, ["price"])
    above = [name for name, found in told["psi"].items() if found["psi"] > found["critical"]]
    assert above == ["price"]
    (line,) = [line for line in shown.splitlines() if "moved by the scenario" in line]
    assert line.split()[:2] == ["price", f"{told['psi']['price']['psi']:.4f}"]
    assert "Prices double: 1,000 applicants" in shown


def test_the_scenarios_are_listed(run: Callable[..., Outcome]) -> None:
    """With what they move."""
    shown = run("simulate", "--list")
    told = run("simulate", "--list", "--json").json()

    assert "Prices double" in shown.out
    assert [(one["name"], one["moves"]) for one in told] == [("stable", []), ("dear", ["price"])]


def test_nothing_is_written_over(place: Place, run: Callable[..., Outcome]) -> None:
    """And what is stopped leaves nothing."""
    output = place.folder / "mine.csv"
    output.write_text("mine", encoding="utf-8")

    refused(run("simulate", str(output)), 1, "mine.csv exists")

    assert output.read_text(encoding="utf-8") == "mine"
    refused(run("simulate", str(place.folder / "no" / "x.csv")), 1, "No such file or directory")


def test_a_file_that_is_interrupted_is_not_there(
    place: Place, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is nothing that anybody asked for."""

    def stopped(*_: object) -> Iterator[simulation.Applicant]:
        yield simulation.Applicant(toys.SAFE, valid=True)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(simulation, "applicants", stopped)
    before = sorted(place.folder.iterdir())

    done = run("simulate", str(place.folder / "half.csv"))

    assert done.code == 143
    assert sorted(place.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--rate", "5/s"), "--rate goes with --url"),
        (("--duration", "1s"), "--duration goes with --url"),
        (("--connections", "1"), "--connections goes with --url"),
        (("--reviews", "0"), "--reviews goes with --url"),
        (("--allow-remote",), "--allow-remote goes with --url"),
        (("--json",), "--json goes with OUT or --url"),
        (("--format", "parquet"), "a Parquet file needs OUT"),
        (("out.xlsx",), "OUT ends in"),
        (("out.csv", "--url", "http://localhost:1"), "--url goes without OUT"),
        (("--format", "csv", "--url", "http://localhost:1"), "--url goes without OUT"),
        (("--url", "localhost:3000"), "--url is not the URL of a server"),
        (("--url", "http://localhost:x"), "--url is not the URL of a server"),
        (("--url", "http://example.com"), "example.com is not this machine"),
        (("--url", "http://localhost:1", "--rate", "0"), "--rate is a number above 0"),
        (("--url", "http://localhost:1", "--rate", "5/d"), "--rate is a number above 0"),
        (("--url", "http://localhost:1", "--duration", "5 s"), "--duration is a number above 0"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(
    run: Callable[..., Outcome], arguments: tuple[str, ...], told: str
) -> None:
    """What goes with what, and what is meant by a number."""
    done = run("simulate", *arguments)

    assert done.code == 2
    assert told in " ".join(done.err.replace("│", " ").split())


def test_what_is_not_there_is_told(run: Callable[..., Outcome]) -> None:
    """By name: a scenario, a portfolio, a server."""
    refused(run("simulate", "--scenario", "boom"), 3, "no scenario 'boom'", "stable, dear")
    refused(run("simulate", "--portfolio", "boats"), 3, "no portfolio 'boats'")
    refused(run("simulate", "--url", "http://127.0.0.1:1"), 1, "does not answer")


def test_applicants_are_sent_to_a_server(place: Place, run: Callable[..., Outcome]) -> None:
    """Those of its portfolio; what it answered is told, and all is well."""
    with answering(decided) as asked:
        common = ("simulate", "--url", asked.url, "--rate", "60000/min", "--invalid", "0.1")
        told = run(*common, "--rows", "100", "--scenario", "dear", "--json").json()
        shown = run(*common, "--rows", "100")
        timed = run(*common, "--duration", "0.2s", "--json").json()
        other = run(*common, "--portfolio", "boats")

    assert (told["portfolio"], told["scenario"], told["applications"]) == (toys.NAME, "dear", 100)
    assert told["model_version"] == place.trees, "the server's own is not here: the default's"
    assert told["decisions"]["APPROVE"] + told["refused"] == 100
    assert told["failures"] == {}
    assert (shown.code, "APPROVE: " in shown.out, "refused: " in shown.out) == (0, True, True)
    assert timed["applications"] > 0
    assert timed["seconds"] >= 0.2
    assert other.code == 2


def test_a_server_that_answers_wrongly_is_exit_code_1(run: Callable[..., Outcome]) -> None:
    """With the failures among what is told."""
    with answering(lambda *_: (500, {"type": "/problems/internal-error"})) as asked:
        done = run("simulate", "--url", asked.url, "--rate", "1000", "--rows", "1")

    assert done.code == 1
    assert "FAILED, 500 internal-error: 1" in done.out


def test_an_interruption_tells_what_was_done(run: Callable[..., Outcome]) -> None:
    """On standard output, before it ends."""
    answers = count(1)

    def interrupting(route: str, body: object) -> tuple[int, object]:
        if next(answers) == 3:
            signal.raise_signal(signal.SIGTERM)
        return decided(route, body)

    with answering(interrupting) as asked:
        done = run("simulate", "--url", asked.url, "--rate", "1000", "--connections", "1", "--json")

    assert done.code == 143
    assert done.json()["requests"] >= 2
