"""Whether a model keeps the directions that its portfolio promises.

Training imposes them; a pipeline made elsewhere may never have heard of them. So they are measured
for every package: each promised field is moved over its range, everything else held fixed, and
the probability of default (PD) is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from credit_risk.documents import Document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credit_risk.profile import Marginal, Profile
    from credit_risk.schema import FieldSpec, Schema

Floats = npt.NDArray[np.float64]
Scorer = Callable[[Floats], Floats]

TOLERANCE = 1e-9
"""A PD that moves the wrong way by no more has not moved: the noise of adding floats up."""

QUANTILES = 20
"""Values tried of a number, spread as the population's are, besides both ends of its range."""


class Kept(Document):
    """How well one promise is kept.

    ``share`` is that of applicants whose PD moves the wrong way by more than `TOLERANCE` somewhere
    in the field's range, ``largest`` the furthest it moves so between two values, in PD and
    rounded to the tolerance.
    """

    share: float
    largest: float


def measure(
    pds: Scorer, schema: Schema, population: Profile, applicants: Floats
) -> dict[str, Kept]:
    """Each field with a promised direction, and how well the promise is kept.

    The same curves as those of individual conditional expectation (Goldstein et al., "Peeking
    Inside the Black Box", JCGS 24, 2015). Missing values are nowhere in the range, so they are not
    tried; nor is a derived number, which cannot move alone.

    Args:
        pds: the model, from rows of shape (n, fields) to PDs of shape (n,).
        schema: the fields, and what is promised of them.
        population: where a number's values are dense.
        applicants: shape (rows, fields), at least one row.
    """
    kept: dict[str, Kept] = {}
    for i, (spec, marginal) in enumerate(zip(schema.fields, population.marginals, strict=True)):
        if spec.direction == "none":
            continue
        values = _values(spec, marginal)
        moved = np.repeat(applicants, len(values), axis=0)
        moved[:, i] = np.tile(values, len(applicants))
        curves = pds(moved).reshape(len(applicants), len(values))
        risk = curves if spec.direction == "increasing" else curves[:, ::-1]
        falls = (np.maximum.accumulate(risk, axis=1) - risk).max(axis=1)
        wrong = falls > TOLERANCE
        largest = float(falls.max()) if wrong.any() else 0.0
        kept[spec.name] = Kept(share=float(wrong.mean()), largest=round(largest, 9))
    return kept


def warning(kept: Mapping[str, Kept]) -> str | None:
    """What to be told of promises that are not kept; None if all are."""
    broken = [f"{name} ({k.share:.1%} of applicants)" for name, k in kept.items() if k.share]
    if not broken:
        return None
    return (
        f"the PD moves against the direction that the schema promises for {', '.join(broken)}; "
        "see the card before relying on a promise, that for age above all"
    )


def _values(spec: FieldSpec, marginal: Marginal) -> Floats:
    if spec.is_category:
        return np.arange(len(spec.categories), dtype=np.float64)
    every = max(1, len(marginal.quantiles) // QUANTILES)
    inner = marginal.quantiles[every // 2 :: every]
    ends = [end for end in (spec.minimum, spec.maximum) if end is not None]
    return np.unique(np.array([*ends, *inner], dtype=np.float64))
