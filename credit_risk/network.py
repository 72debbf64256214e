"""A feed-forward network of rectified units, and exact Shapley values of its score.

A layer is ``W h + b``, with ``max(0, .)`` between layers; the last has one unit, the score. It is
scored in float64 by a kernel that takes rows one by one, so that a row has the same score alone
and among others.

Values are interventional (as everywhere, see ``shapley``): with z a row of the reference group,
the game "columns of the factors in S from the applicant x, the others from z" is played in full.
A factor whose columns are the same in x and in z changes nothing, so with k factors that differ
there are ``2^k`` coalitions; each factor's share of the first layer is added up once for all of
them. That is exact, and a thousand times the work of a score for each row of the group: only
`REFERENCE_ROWS` of it take part, chosen evenly over the group's scores so that their mean is hardly
another than the whole group's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from credit_risk.errors import PackageInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Columns = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int32]

REFERENCE_ROWS = 100
"""So many rows of the reference group explanations are measured against."""

_FLOAT64 = np.dtype(np.float64)

FACTORS_MAX = 14
"""With more, two to their number of coalitions for each of these rows take too long."""


@dataclass(frozen=True, slots=True)
class Layer:
    """``W h + b``: weights of shape (units, inputs), biases of shape (units,), float64."""

    weights: Floats
    biases: Floats


@dataclass(frozen=True)
class Network:
    """Layers that follow each other, the last of one unit.

    Raises:
        PackageInvalid: they do not fit each other, or hold what is no number.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        inputs = self.columns
        for number, layer in enumerate(self.layers):
            units = len(layer.biases)
            fits = layer.weights.shape == (units, inputs) and layer.biases.ndim == 1
            if not (fits and units):
                msg = f"network: layer {number} does not fit the one before"
                raise PackageInvalid(msg)
            if not (np.isfinite(layer.weights).all() and np.isfinite(layer.biases).all()):
                msg = f"network: layer {number} holds what is no finite number"
                raise PackageInvalid(msg)
            inputs = units
        if inputs != 1:
            msg = "network: the last layer needs one unit, the score"
            raise PackageInvalid(msg)

    @property
    def columns(self) -> int:
        """How many columns it takes."""
        if not self.layers or self.layers[0].weights.ndim != 2:  # noqa: PLR2004 - a matrix
            msg = "network: it has no layers"
            raise PackageInvalid(msg)
        return int(self.layers[0].weights.shape[1])

    @cached_property
    def _packed(self) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
        widths = np.array([self.columns, *(len(layer.biases) for layer in self.layers)])
        # By input, so that the kernel's inner loop runs over units, which lie side by side.
        weights = np.concatenate([layer.weights.T.ravel() for layer in self.layers])
        return widths, weights, np.concatenate([layer.biases for layer in self.layers])

    def scores(self, columns: Columns) -> Floats:
        """The score of each row, shape (n,), of columns of shape (n, columns)."""
        scores: Floats = _scores(columns, *self._packed)
        return scores

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, for `from_arrays`."""
        return {
            f"{part}_{number}": getattr(layer, part)
            for number, layer in enumerate(self.layers)
            for part in ("weights", "biases")
        }


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Network:
    """A network of `Network.arrays`.

    Raises:
        PackageInvalid: an array is missing or of another type, or they do not fit each other.
    """
    layers = []
    for number in range(len(arrays) // 2):
        weights, biases = (arrays.get(f"{part}_{number}") for part in ("weights", "biases"))
        if weights is None or biases is None or {weights.dtype, biases.dtype} != {_FLOAT64}:
            msg = f"network: layer {number} is missing, or not of float64"
            raise PackageInvalid(msg)
        layers.append(Layer(weights, biases))
    return Network(tuple(layers))


@dataclass(frozen=True, slots=True)
class Explainer:
    """Exact interventional Shapley values of a network's score.

    ``reference`` is of shape (m, columns); ``members`` says of each factor which columns are
    reported under it, shape (factors, columns).
    """

    network: Network
    reference: Columns
    members: npt.NDArray[np.bool_]
    base: float
    """Mean score of the reference rows."""

    def contributions(self, columns: Columns) -> Floats:
        """The values of each factor, shape (n, factors), of columns of shape (n, columns)."""
        values = np.zeros((len(columns), len(self.members)))
        # Row by row, so that a row has the same reasons alone and among others.
        for row, out in zip(columns, values, strict=True):
            for other in self.reference:
                self._add(row, other, out)
        values /= len(self.reference)
        return values

    def _add(self, row: Columns, other: Columns, out: Floats) -> None:
        """Add what each factor changes between a reference row and an applicant."""
        first, *rest = self.network.layers
        change = row.astype(np.float64) - other
        differing = np.flatnonzero((self.members & (change != 0.0)).any(axis=1))
        shares = (self.members[differing] * change) @ first.weights.T
        hidden = np.empty((1 << len(differing), len(first.biases)))
        hidden[0] = first.weights @ other.astype(np.float64) + first.biases
        for place, share in enumerate(shares):
            np.add(hidden[: 1 << place], share, out=hidden[1 << place : 2 << place])
        for layer in rest:
            np.maximum(hidden, 0.0, out=hidden)
            hidden = hidden @ layer.weights.T
            hidden += layer.biases
        out[differing] += _shapley_weights(len(differing)) @ hidden[:, 0]


def explainer(network: Network, reference: Columns, factors: Ints, fields: int) -> Explainer:
    """Prepare to explain.

    Args:
        network: what is explained.
        reference: the reference group, encoded, shape (m, columns).
        factors: shape (columns,), the field that each column is reported under.
        fields: how many fields there are.

    Raises:
        PackageInvalid: more than `FACTORS_MAX` fields have columns.
    """
    members = factors == np.arange(fields)[:, np.newaxis]
    if members.any(axis=1).sum() > FACTORS_MAX:
        msg = f"network: more than {FACTORS_MAX} fields, too many for exact reasons"
        raise PackageInvalid(msg)
    by_score = np.argsort(network.scores(reference), kind="stable")
    number = min(REFERENCE_ROWS, len(reference))
    # The middle row of each of so many equal parts.
    places = (2 * np.arange(number) + 1) * len(reference) // (2 * number)
    used = reference[by_score[places]]
    return Explainer(network, used, members, float(network.scores(used).mean()))


@cache
def _shapley_weights(players: int) -> Floats:
    """What each coalition's value counts for each player, shape (players, 2 ** players).

    Shapley's ``(s - 1)! (n - s)! / n!`` for a coalition of s with the player in it, and the same
    with s + 1 and a minus for one without (Shapley 1953). Bit i of a coalition is player i.
    """
    coalitions = np.arange(1 << players)
    size = np.bitwise_count(coalitions).astype(int)
    share = [factorial(s) * factorial(players - 1 - s) / factorial(players) for s in range(players)]
    # Without the player it is of size 0 to n - 1, with the player one more.
    plus = np.array([0.0, *share])
    minus = np.array([*share, 0.0])
    inside = (coalitions >> np.arange(players)[:, np.newaxis]) & 1 == 1
    weights: Floats = np.where(inside, plus[size], -minus[size])
    return weights


@njit(cache=True, nogil=True)
def _scores(columns, widths, weights, biases):  # type: ignore[no-untyped-def]
    rows = columns.shape[0]
    layers = widths.shape[0] - 1
    scores = np.empty(rows, dtype=np.float64)
    before = np.empty(widths.max(), dtype=np.float64)
    after = np.empty(widths.max(), dtype=np.float64)
    for r in range(rows):
        for i in range(widths[0]):
            before[i] = columns[r, i]
        weight = 0
        bias = 0
        for k in range(layers):
            units = widths[k + 1]
            for j in range(units):
                after[j] = biases[bias + j]
            for i in range(widths[k]):
                value = before[i]
                for j in range(units):
                    after[j] += value * weights[weight + j]
                weight += units
            bias += units
            for j in range(units):
                # Not max(), which is 0 for what is no number and would hide it.
                before[j] = 0.0 if k + 1 < layers and after[j] < 0.0 else after[j]
        scores[r] = before[0]
    return scores
