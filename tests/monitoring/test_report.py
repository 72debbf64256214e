from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from credit_risk.retraining import Check
from monitoring import report
from tests.monitoring import monitored

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.retraining import Verdict

VOID = {"meta", "br", "hr", "img", "link"}


class Reader(HTMLParser):
    """Reads a page: its words, its tags, and whether each that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:  # noqa: D102
        self.words.append(data)


def read(page: str) -> Reader:
    """A page, read to its end."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page() -> Reader:
    """The report on a package of which everything is known."""
    return read(report.page(monitored.everything()))


def test_the_report_needs_nothing_but_itself(page: Reader) -> None:
    """No script, no picture, no style or font from elsewhere: it may be mailed and archived."""
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "onload", "onclick"}
    assert any("default-src 'none'" in (value or "") for _, value in page.attributes)


def test_the_report_says_first_what_to_do_and_why(page: Reader) -> None:
    """In the words of the check and of the comparison."""
    known = monitored.everything()
    text = " ".join(page.words)

    assert known.check.verdict != "NOT_NEEDED"
    headline = text.index(report.HEADLINES[known.check.verdict])
    assert known.window is not None
    reasons = [text.index(reason) for reason in known.check.reasons]
    assert headline < text.index(known.window.recommendation) < min(reasons)
    assert max(reasons) < text.index("Drift, day by day")


def test_the_report_shows_every_field_by_its_title(page: Reader) -> None:
    """With its verdict; and every section that there is something for."""
    words = [word.strip() for word in page.words]

    assert set(monitored.everything().titles.values()) <= set(words)
    for title in ("Vintages", "Were the PDs right?", "Approvals by region & more"):
        assert title in words
    assert page.tags.count("svg") == 2 + len(monitored.everything().titles) + 1 + 2 + 1 + 2


def test_fields_together_are_told_with_those_that_the_classifier_went_by() -> None:
    """Or why they were not compared."""
    text = " ".join(read(report.page(monitored.everything())).words)
    assert "Area under its curve 0.712; drift from 0.550 on." in text
    assert "It went by" in text
    nothing = " ".join(read(report.page(monitored.nothing())).words)
    assert "Not compared: it is not installed." in nothing


def test_the_tiles_count_the_last_days_and_not_the_last_with_decisions() -> None:
    """A package that has not decided for two weeks decided nothing in the last seven days."""
    known = monitored.everything()
    quiet = " ".join(read(report.page(known)).words)
    busy = " ".join(
        read(report.page(replace(known, made=datetime(2026, 11, 9, 8, tzinfo=UTC)))).words
    )

    assert "0 decisions in the last 7 days" in quiet
    assert "1,223 decisions in the last 7 days" in busy


def test_names_of_groups_are_words_whatever_is_in_them(page: Reader) -> None:
    """Somebody sent them."""
    assert "<i>south</i>" in page.words
    assert "<i>south</i>" not in report.page(monitored.everything())


def test_the_report_on_a_package_of_which_nothing_is_known_says_so() -> None:
    """It is not empty, and nothing in it is a fault."""
    page = read(report.page(monitored.nothing()))
    text = " ".join(page.words)

    assert "No applicants could be compared." in text
    assert "no outcomes are on record" in text
    assert "Neither drift nor performance is known" in text
    assert "svg" not in page.tags
    assert "None" not in text


def test_before_there_are_enough_outcomes_the_report_tells_what_to_expect() -> None:
    """And what is lacking."""
    few = monitored.outcomes().model_copy(
        update={"figures": None, "not_enough": "3 outcomes are known, and 100 are needed"}
    )
    text = " ".join(read(report.page(replace(monitored.everything(), performance=few))).words)

    assert "3 outcomes are known, and 100 are needed" in text
    assert "What the PDs of recent applicants let expect" in text
    assert "AUC that PDs let expect" in text


@pytest.mark.parametrize("verdict", report.HEADLINES)
def test_each_verdict_has_its_headline_and_its_colour(verdict: Verdict) -> None:
    """And no other's."""
    check = Check(verdict=verdict, reasons=("Because.",), criteria=())
    page = report.page(replace(monitored.everything(), check=check))

    assert re.findall(r'class="verdict (\w+)">\s*<h2>(.*?)</h2>', page) == [
        (verdict, report.HEADLINES[verdict])
    ]


def test_a_group_that_nothing_can_be_compared_with_is_told() -> None:
    """Instead of charts."""
    alone = monitored.groups().model_copy(
        update={"reference": None, "not_enough": "no group has 30 applicants"}
    )
    text = " ".join(read(report.page(replace(monitored.everything(), fairness=[alone]))).words)

    assert "Nothing to compare: no group has 30 applicants." in text


def test_reports_are_written_with_a_page_that_leads_to_each(tmp_path: Path) -> None:
    """And written again in their place; nothing else is left in the folder."""
    folder = tmp_path / "some" / "reports"
    pages = [monitored.everything(), monitored.nothing()]

    index = report.write(folder, pages)
    again = report.write(folder, pages)

    assert index == again == folder / "index.html"
    linked = dict(read(index.read_text("utf-8")).attributes)
    assert linked["href"] == pages[1].name
    assert {path.name for path in folder.iterdir()} == {"index.html", *(p.name for p in pages)}
    assert (folder / pages[0].name).read_text("utf-8") == report.page(pages[0])


def test_without_decisions_the_page_says_that_there_are_none(tmp_path: Path) -> None:
    """The folder is there for who serves it."""
    assert "No decisions are on record." in report.write(tmp_path, []).read_text("utf-8")
