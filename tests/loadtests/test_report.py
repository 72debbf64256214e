"""The report: the same verdict on the terminal, as JSON and on the page."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import charts, crosscheck, measurement, objectives, report, soak, verdict
from loadtests.crosscheck import Histogram
from loadtests.objectives import Scenario
from loadtests.report import Report
from loadtests.run import Run
from loadtests.server import Server
from tests import looks
from tests.loadtests.traffic import samples

LAX = objectives.Targets(p50=1e4, p95=1e4, p99=1e4, error_rate=0.5, throughput=0.1)
STRICT = objectives.Targets(p50=0.001, p95=0.002, p99=0.003, error_rate=0, throughput=1e6)


def run_of(
    targets: objectives.Targets,
    *,
    name: str = "predict",
    counted: int = 200,
    users: int = 4,
    others: float = 0.0,
    duration: int = 3,
) -> Run:
    """A run of 200 requests of 10 to 30 ms, of which the server counted ``counted``."""
    scenario = Scenario(title="Singles & <more>", users=users, duration=duration, targets=targets)
    made = samples([10.0 + i % 20 for i in range(200)])
    after = {"/predict": Histogram(counted, {0.01: 10, 0.025: 150, 0.05: counted})}
    measured = measurement.measure(made)
    return Run(
        name,
        scenario,
        scenario.model_copy(update={"users": 4}),
        made,
        measured,
        verdict.judge(targets, measured),
        crosscheck.compare({}, after, made),
        (soak.Resident(1.0, {7: 250_000_000}),),
        others,
        Path("locust-predict.html"),
    )


def report_of(*runs: Run) -> Report:
    """A report of these runs."""
    return Report(
        began=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
        machine="two cores",
        command="python -m loadtests",
        server=Server("http://127.0.0.1:1", "personal-loans", "abc", None),
        workers=2,
        runs=runs,
    )


def printed(made: Report) -> str:
    """The table as it appears on a terminal."""
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(report.table(made))
    return console.export_text()


def test_a_run_that_meets_everything_exits_0() -> None:
    """And says so in all three places."""
    made = report_of(run_of(LAX))

    assert made.exit_code == 0
    assert printed(made).count("OK") == 5
    assert report.document(made)["met"] is True
    assert "all objectives met" in report.page(made)


def test_one_run_that_misses_makes_the_report_exit_1() -> None:
    """Whatever the others did."""
    made = report_of(run_of(LAX), run_of(STRICT, name="mix"))

    assert made.exit_code == 1
    assert printed(made).count("MISSED") == 4
    assert report.document(made)["met"] is False
    assert "4 of 10 missed" in report.page(made)


def test_a_report_of_nothing_exits_1() -> None:
    """Nothing run is nothing shown."""
    assert report_of().exit_code == 1


def test_the_page_needs_nothing_else_and_is_well_formed() -> None:
    """Its style and plots are in it; what is text is escaped; every tag is closed."""
    page = report.page(report_of(run_of(LAX), run_of(LAX, name="soak")))
    opened: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "br"):
                opened.append(tag)
            assert "src" not in dict(attrs)
            assert tag not in ("script", "link")

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Tags().feed(page)

    assert opened == []
    assert page.count("<svg") == 4
    assert "Singles &amp; &lt;more&gt;" in page


def test_the_page_fits_a_phone_light_and_dark() -> None:
    """Plots have the page's colours, and none of their own."""
    page = report.page(report_of(run_of(LAX), run_of(STRICT, name="soak")))

    looks.check(page)
    assert page.count('<div class="wide"><svg') == page.count("<svg") == 4
    assert not re.search("|".join(charts.OF_THE_PAGE), page[page.index("<body>") :])


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (run_of(LAX, counted=199), "the server counted 199 requests, the client 200"),
        (run_of(LAX, others=1.26), "other programs used 1.3 cores meanwhile"),
        (run_of(LAX, duration=5), "requests were made for 3.9 s of 5"),
        (run_of(LAX, users=9), "run with 9 users, 3 s; the objectives are for 4 users, 3 s"),
    ],
)
def test_figures_to_be_read_with_care_say_why(run: Run, words: str) -> None:
    """On the page and in the JSON."""
    made = report_of(run)

    assert words in report.page(made)
    assert any(words in warning for warning in report.document(made)["runs"][0]["warnings"])


def test_a_run_as_stated_whose_counts_agree_says_nothing() -> None:
    """No warning where there is none to give."""
    assert report.warnings(run_of(LAX)) == []


def test_the_json_holds_the_figures_unrounded() -> None:
    """It is JSON, with targets, figures and both sides of the cross-check."""
    made = run_of(LAX)
    (one,) = json.loads(json.dumps(report.document(report_of(made)), allow_nan=False))["runs"]

    assert made.measured is not None
    assert one["measured"]["p99"] == made.measured.p99
    assert [o["objective"] for o in one["objectives"]] == list(verdict.UNITS)
    assert one["cross_check"][0]["server_requests"] == 200
    assert one["cross_check"][0]["within"][1]["server"] == 0.75
