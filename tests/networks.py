"""Networks of made-up weights."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from credit_risk.network import Layer, Network

if TYPE_CHECKING:
    from collections.abc import Sequence


def made_up(columns: int, hidden: Sequence[int], seed: int = 0) -> Network:
    """A network of drawn weights: half of its units are at 0 for a row of normal numbers."""
    generator = np.random.default_rng(seed)
    widths = (columns, *hidden, 1)
    return Network(
        tuple(
            Layer(
                generator.normal(size=(units, inputs)) / np.sqrt(inputs),
                generator.normal(size=units) / 4,
            )
            for inputs, units in pairwise(widths)
        )
    )
