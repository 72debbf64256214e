"""Pages: they fit any screen, light and dark, and are replaced whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitoring import charts, contested, pages, report
from tests import looks
from tests.monitoring import monitored

if TYPE_CHECKING:
    from collections.abc import Callable

STYLE = (Path(pages.__file__).parent / "report.css").read_text(encoding="utf-8")
MADE = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "made",
    [
        lambda: report.page(monitored.everything()),
        lambda: contested.page("loans", monitored.contest(), MADE),
        lambda: pages.render("reports.html.j2", rows=[], headlines=report.HEADLINES),
    ],
    ids=["package", "challenger", "index"],
)
def test_each_fits_a_phone_light_and_dark(made: Callable[[], str]) -> None:
    """Drawings too: wider ones scroll in boxes, beside names or not."""
    page = made()

    looks.check(page)
    for box, width in re.findall(r'(class="wide(?: newest)?">)?<svg [^>]*?width="([\d.]+)"', page):
        assert box or float(width) <= charts.HALF


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
