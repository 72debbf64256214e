from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.drawing import Drawing, Scale, ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: Drawing) -> ET.Element:
    """A drawing as XML."""
    return ET.fromstring(drawing.svg())  # noqa: S314 - our own


def test_shapes_are_where_they_were_put() -> None:
    """In order, each with its class."""
    drawing = Drawing(100, 50, "A box, a line, a curve, a dot and a word")

    drawing.box(1, 2, 30, 4, "one")
    drawing.line(0, 0, 10, 20, "two")
    drawing.curve([(0, 1), (2, 3)], "three")
    drawing.dot(5, 6, 7, "four")
    drawing.text(8, 9, "five", anchor="end")

    root = parsed(drawing)
    assert root.get("viewBox") == "0 0 100 50"
    assert root.get("aria-label") == "A box, a line, a curve, a dot and a word"
    assert [shape.tag for shape in root] == ["rect", "line", "polyline", "circle", "text"]
    assert [shape.get("class") for shape in root] == ["one", "two", "three", "four", "label"]
    assert root[2].get("points") == "0,1 2,3"
    assert root[4].text == "five"


def test_a_box_is_never_less_than_empty() -> None:
    """Browsers refuse one of negative width, and the drawing with it."""
    drawing = Drawing(10, 10, "Nothing")

    drawing.box(0, 0, -3, -0.1, "one")

    assert (parsed(drawing)[0].get("width"), parsed(drawing)[0].get("height")) == ("0", "0")


def test_words_are_words_whatever_is_in_them() -> None:
    """A group's name is somebody's own."""
    hostile = '"><script>alert(1)</script>&'
    drawing = Drawing(10, 10, hostile)

    drawing.text(0, 0, hostile)
    drawing.box(0, 0, 1, 1, "one", says=hostile)

    root = parsed(drawing)
    assert root.get("aria-label") == root[0].text == root[1][0].text == hostile
    assert "<script" not in drawing.svg()


def test_words_too_long_are_cut_and_told_in_full() -> None:
    """To who points at them."""
    drawing = Drawing(10, 10, "Words")

    drawing.text(0, 0, "abcdef", most=6)
    drawing.text(0, 0, "abcdefg", most=6)

    whole, cut = parsed(drawing)
    assert whole.text == "abcdef"
    assert (cut[0].text, cut[0].tail) == ("abcdefg", "abcde…")


def test_a_scale_keeps_what_is_beyond_at_its_end() -> None:
    """Upside down as well, as heights are; and a scale of one number has a place for it."""
    up = Scale(0, 10, 100, 0)

    assert [up(value) for value in (-1, 0, 5, 10, 11)] == [100, 100, 50, 0, 0]
    assert Scale(3, 3, 0, 8)(3) == 0


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_begin_with_0_and_reach_the_highest(high: float) -> None:
    """The last but one does not."""
    marks = ticks(high)

    assert marks[0] == 0.0
    assert 3 <= len(marks) <= 6
    assert marks[-1] >= high * (1 - 1e-8)
    assert marks[-2] < high


@pytest.mark.parametrize(
    ("high", "marks"),
    [(0.0, [0, 1]), (1, [0, 0.25, 0.5, 0.75, 1]), (7, [0, 2, 4, 6, 8]), (90, [0, 25, 50, 75, 100])],
)
def test_ticks_are_round(high: float, marks: list[float]) -> None:
    """As people count."""
    assert ticks(high) == pytest.approx(marks)
