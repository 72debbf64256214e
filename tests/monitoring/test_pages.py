"""Pages: they fit any screen, light and dark, and are replaced whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from monitoring import charts, contested, pages, report
from tests.monitoring import monitored

if TYPE_CHECKING:
    from collections.abc import Callable

STYLE = (Path(pages.__file__).parent / "report.css").read_text(encoding="utf-8")
MADE = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


def body(page: str) -> ET.Element:
    """What is below the head of a page, every tag of which is closed."""
    return ET.fromstring(page[page.index("<body>") : page.index("</html>")])  # noqa: S314 - our own


def boxed(element: ET.Element, box: str) -> set[ET.Element]:
    """What is inside of boxes of a class."""
    found = (one for one in element.iter() if box in (one.get("class") or "").split())
    return {inner for one in found for inner in one.iter()}


@pytest.mark.parametrize(
    "made",
    [
        lambda: report.page(monitored.everything()),
        lambda: contested.page("loans", monitored.contest(), MADE),
        lambda: pages.render("reports.html.j2", rows=[], headlines=report.HEADLINES),
    ],
    ids=["package", "challenger", "index"],
)
def test_what_is_wide_scrolls_in_its_own_box(made: Callable[[], str]) -> None:
    """Tables do, and drawings wider than a phone: the page itself has no scroll sideways."""
    shown = body(made())
    wide = boxed(shown, "wide")

    assert {*shown.iter("table")} <= wide
    for drawing in shown.iter("svg"):
        assert drawing in wide or float(drawing.get("width") or "nan") <= charts.HALF


def test_each_colour_of_light_has_one_of_dark() -> None:
    """And no colour is used that there is not."""
    light, dark = (
        set(re.findall(r"(--[a-z0-9-]+):", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    )

    assert light == dark
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", STYLE)) <= light | {"--is"}


def test_each_look_of_a_drawing_is_in_the_style() -> None:
    """Without one, a shape is black on whatever ground."""
    drawn = report.page(monitored.everything()) + contested.page("loans", monitored.contest(), MADE)
    shapes = re.findall(r'<(?:rect|line|circle|polyline)[^>]* class="([^"]+)"', drawn)
    lines = ("series", *(f"s{number}" for number in range(5)))

    for kind in {*" ".join(shapes).split(), *charts.HEAT, *lines}:
        assert re.search(rf"\.{kind}\b", STYLE), kind


def test_a_page_is_replaced_whole(tmp_path: Path) -> None:
    """Nothing else is left in the folder."""
    path = tmp_path / "new" / "page.html"

    pages.write(path, "before")

    assert pages.write(path, "after") == path
    assert path.read_text(encoding="utf-8") == "after"
    assert [*path.parent.iterdir()] == [path]
