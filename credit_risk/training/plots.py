"""What the plots of cards and comparisons share: one style, and bytes that depend on nothing else.

Blue and vermilion are of Okabe and Ito's palette: told apart by colour-blind readers, and by
everyone else in grey print.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Floats = npt.NDArray[np.float64]

BLUE = "#0072B2"
VERMILION = "#D55E00"
INK = "#222222"
QUIET = "#6B6B6B"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so it is the same everywhere
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 144.0,
}
"""For `matplotlib.style.context`, after "default": nobody's own matplotlibrc has a say."""

_COLOURS = 64


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    buffer = io.BytesIO()
    # A palette is a third of the size, and Pillow writes neither date nor version into the file.
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def root(values: Floats) -> Floats:
    """Square root; most PDs are small, and it gives them room while 0 and 1 stay on the axis."""
    return np.sqrt(np.maximum(values, 0.0))


def percent(axes: Axes, which: str) -> None:
    """Label the axes named by ``which``, "x", "y" or both, in per cent."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g}%"))
