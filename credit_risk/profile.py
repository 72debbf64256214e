"""The reference profile: what the training population looked like, without any of its rows.

For each field: the marginal distribution (quantiles of numbers, shares of categories, the share
missing) and PSI bins; across fields: the rank correlations. From it drift is measured, and from
it made-up applicants are drawn (a Gaussian copula), so that no package ever holds a real one.
"""

from __future__ import annotations

from math import erf, sqrt
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, model_validator

from credit_risk.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Marginal(Document):
    """One field's distribution.

    For numbers ``quantiles[i]`` is the value at probability (i + 1/2) / n, without interpolation,
    so that round numbers stay as common as they were; for categories ``shares`` are given in the
    schema's order of categories. Both describe the values that are present; ``missing`` is the
    share that is not.

    ``edges`` are the inner edges of the PSI bins (numbers only) and ``bins`` the reference share
    of each bin among all rows, the missing ones apart.
    """

    field: str
    missing: Share
    quantiles: tuple[float, ...] = ()
    shares: tuple[Share, ...] = ()
    edges: tuple[float, ...] = ()
    bins: tuple[Share, ...]


class Profile(Document):
    """A group of applicants, described.

    ``correlation`` is the correlation matrix of the Gaussian copula behind the fields, in the
    schema's order, followed by the latent variables of missing values (``missing_order`` names
    their fields). ``score_edges`` and ``score_bins`` describe the PD itself.
    """

    group: str
    rows: Annotated[int, Field(ge=1)]
    marginals: tuple[Marginal, ...]
    correlation: tuple[tuple[float, ...], ...]
    missing_order: tuple[str, ...]
    score_edges: tuple[float, ...] = ()
    score_bins: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _is_square(self) -> Profile:
        size = len(self.marginals) + len(self.missing_order)
        if len(self.correlation) != size or any(len(row) != size for row in self.correlation):
            msg = f"correlation: not a {size} by {size} matrix"
            raise ValueError(msg)
        return self


def draw(profile: Profile, schema: Schema, rows: int, seed: int) -> Floats:
    """Draw made-up applicants.

    A Gaussian copula: correlated normal variables, turned to uniform ones, turned to each
    field's own distribution. A field that follows from two others is computed from them as the
    applicant's would be. Values are within the schema's ranges.

    Args:
        profile: the group to resemble.
        schema: its schema.
        rows: how many.
        seed: same seed, same applicants.

    Returns:
        Shape (rows, fields), see `Schema.vector`.
    """
    return placed(profile, schema, uniforms(profile, rows, seed))


def uniforms(profile: Profile, rows: int, seed: int | Sequence[int]) -> Floats:
    """Draw the variables behind applicants: each uniform, correlated as the fields are.

    Returns:
        Shape (rows, variables): the fields' in the schema's order, then those of missing values.
    """
    generator = np.random.default_rng(seed)
    correlation = np.array(profile.correlation)
    # Eigenvectors rather than Cholesky: a rank correlation matrix may be only semidefinite.
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    normal = generator.standard_normal((rows, len(correlation))) @ root.T
    uniform: Floats = 0.5 * (1.0 + np.vectorize(erf, otypes=[np.float64])(normal / sqrt(2.0)))
    return uniform


def placed(profile: Profile, schema: Schema, uniform: Floats) -> Floats:
    """The applicants that `uniforms` stand for, each variable a place in its field's distribution.

    Returns:
        Shape (rows, fields), see `Schema.vector`.
    """
    drawn = np.empty((len(uniform), len(schema.fields)))
    for i, (spec, marginal) in enumerate(zip(schema.fields, profile.marginals, strict=True)):
        u = uniform[:, i]
        if spec.is_category:
            upper = np.cumsum(marginal.shares)
            column = np.searchsorted(upper / upper[-1], u, side="right")
            drawn[:, i] = np.minimum(column, len(spec.categories) - 1)
        else:
            place = np.minimum(
                (u * len(marginal.quantiles)).astype(int), len(marginal.quantiles) - 1
            )
            drawn[:, i] = np.array(marginal.quantiles)[place]
    index = schema.index
    for i, spec in enumerate(schema.fields):
        if spec.follows is not None:
            numerator = drawn[:, index[spec.follows.numerator]]
            ratio = numerator / drawn[:, index[spec.follows.denominator]]
            drawn[:, i] = np.clip(
                np.round(ratio, spec.follows.decimals), spec.minimum, spec.maximum
            )
    for j, name in enumerate(profile.missing_order):
        i = index[name]
        absent = uniform[:, len(schema.fields) + j] < profile.marginals[i].missing
        drawn[absent, i] = np.nan
    return drawn
