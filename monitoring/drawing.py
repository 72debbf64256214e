"""SVG as text: the few shapes that a report's charts are made of.

Colours are classes, which the page gives a colour each, so that a chart follows the page's light or
dark. Coordinates are pixels of a drawing that scales with its place.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

Anchor = Literal["start", "middle", "end"]


class Drawing:
    """A drawing of a size, to which shapes are added; each may say something to who points at it.

    Args:
        width: pixels.
        height: pixels.
        says: what is drawn, in a sentence, for who cannot see it.
    """

    def __init__(self, width: float, height: float, says: str) -> None:
        self._head = (
            f'<svg viewBox="0 0 {width:.6g} {height:.6g}" width="{width:.6g}" role="img" '
            f'aria-label="{escape(says)}">'
        )
        self._parts: list[str] = []

    def svg(self) -> Markup:
        """The drawing, for a page."""
        return Markup("".join((self._head, *self._parts, "</svg>")))  # noqa: S704 - escaped here

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, *, says: str = ""
    ) -> None:
        """A rectangle from its upper left corner, never of negative width or height."""
        place = f'x="{x:.5g}" y="{y:.5g}" width="{max(width, 0):.5g}" height="{max(height, 0):.5g}"'
        self._add(f"rect {place}", kind, says)

    def line(self, x: float, y: float, to_x: float, to_y: float, kind: str) -> None:
        """A straight line."""
        self._add(f'line x1="{x:.5g}" y1="{y:.5g}" x2="{to_x:.5g}" y2="{to_y:.5g}"', kind)

    def curve(self, points: Sequence[tuple[float, float]], kind: str, *, says: str = "") -> None:
        """A line through points."""
        through = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
        self._add(f'polyline points="{through}"', kind, says)

    def dot(self, x: float, y: float, radius: float, kind: str, *, says: str = "") -> None:
        """A circle around its centre."""
        self._add(f'circle cx="{x:.5g}" cy="{y:.5g}" r="{radius:.5g}"', kind, says)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        kind: str = "label",
        *,
        anchor: Anchor = "start",
        most: int | None = None,
    ) -> None:
        """Words from, around or up to a point on their base line.

        Of more letters than ``most`` the first ones, and all to who points at them.
        """
        shown = words if most is None or len(words) <= most else f"{words[: most - 1]}…"
        title = "" if shown == words else f"<title>{escape(words)}</title>"
        self._parts.append(
            f'<text x="{x:.5g}" y="{y:.5g}" class="{kind}" text-anchor="{anchor}">{title}'
            f"{escape(shown)}</text>"
        )

    def _add(self, shape: str, kind: str, says: str = "") -> None:
        opened = f'<{shape} class="{kind}"'
        name = shape.partition(" ")[0]
        closed = f"><title>{escape(says)}</title></{name}>" if says else "/>"
        self._parts.append(opened + closed)


class Scale:
    """Numbers between two ends as places between two others; what is beyond stays at the end."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._start, self._length = start, stop - start

    def __call__(self, value: float) -> float:
        """The place of a number."""
        share = min(max((value - self._low) / self._span, 0.0), 1.0)
        return self._start + share * self._length


def ticks(high: float) -> list[float]:
    """Round numbers from 0 on, four or five of them, the last at or above ``high``."""
    if high <= 0.0:
        return [0.0, 1.0]
    rough = high / 4.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1.0, 2.0, 2.5, 5.0, 10.0) if power * times >= rough)
    number = math.ceil(high / step - 1e-9)
    return [step * place for place in range(number + 1)]
