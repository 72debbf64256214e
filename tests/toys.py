"""A made-up portfolio and hand-made model packages, small enough to reason about.

The portfolio lends bicycles. It has one field of each kind: an integer, numbers with and without
a logarithm, a number that may be missing, ordered and unordered categories, and a derived ratio.
Nothing here is trained: the models' numbers were written down.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from credit_risk import documents, model, onnx_format, package, profile
from credit_risk.batching import Batcher
from credit_risk.encoder import Column, Encoder
from credit_risk.model import Calibration, Linear, ModelSpec
from credit_risk.package import ModelPackage, Parts, Provenance
from credit_risk.policy import Policy
from credit_risk.profile import Marginal, Profile
from credit_risk.reasons import ReasonDictionary
from credit_risk.schema import Schema
from credit_risk.scoring import golden_records
from credit_risk.trees import LEAF, Ensemble
from tests.networks import made_up

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydantic import BaseModel

    from credit_risk.batching import BatchObserver
    from credit_risk.model import Model
    from credit_risk.network import Network
    from credit_risk.schema import Application

    Floats = npt.NDArray[np.float64]

Kind = Literal["trees", "linear", "network"]
KINDS: tuple[Kind, ...] = ("trees", "linear")
"""Those whose reasons play column by column, and fast; a network's play field by field."""

NAME = "bicycle-leases"

SCHEMA = """\
portfolio: bicycle-leases
version: 1.0.0
title: Application for the lease of a bicycle
fields:
  - name: age
    title: Age of the applicant
    type: integer
    unit: years
    minimum: 18
    maximum: 100
    direction: decreasing
    reason: APPLICANT_AGE
    example: 34
  - name: income
    title: Monthly income
    type: number
    unit: currency units per month
    minimum: 100
    maximum: 100000
    transform: log
    reason: INCOME_INSUFFICIENT
    example: 2500
  - name: price
    title: Price of the bicycle
    type: number
    unit: currency units
    minimum: 50
    maximum: 20000
    direction: increasing
    reason: AMOUNT_REQUESTED
    example: 1200
  - name: years_employed
    title: Length of employment
    type: number
    unit: years
    minimum: 0
    maximum: 50
    nullable: true
    missing_indicator: true
    outside: missing
    direction: decreasing
    reason: LENGTH_OF_EMPLOYMENT
    example: 4.5
  - name: history
    title: Payment history of earlier leases
    type: category
    categories: [good, mixed, poor]
    ordered: true
    direction: increasing
    reason: DELINQUENT_OBLIGATIONS
    example: mixed
  - name: use
    title: What the bicycle is for
    type: category
    categories: [cargo, commuting, racing]
    reason: PURPOSE_OF_LEASE
    example: commuting
derived:
  - name: price_to_income
    ratio: {numerator: price, denominator: income}
    factor: price
    direction: increasing
"""

POLICY = """\
portfolio: bicycle-leases
version: 2.1.0
cut_off: 0.4
bands:
  - {name: LOW, lower: 0.0, upper: 0.1, decision: APPROVE}
  - {name: MEDIUM, lower: 0.1, upper: 0.2, decision: APPROVE}
  - {name: HIGH, lower: 0.2, upper: 0.4, decision: REVIEW}
  - {name: VERY_HIGH, lower: 0.4, upper: 1.0, decision: DECLINE}
rules:
  - name: price-above-limit
    kind: knock-out
    when:
      - {field: price, op: gt, value: 15000}
    reason: PRICE_ABOVE_LIMIT
  - name: poor-history-and-racing
    kind: referral
    when:
      - {field: history, op: eq, value: poor}
      - {field: use, op: in, value: [racing]}
    reason: DELINQUENT_OBLIGATIONS
  - name: no-employment-stated
    kind: referral
    when:
      - {field: years_employed, op: missing}
    reason: EMPLOYMENT_NOT_STATED
"""

REASONS = """\
portfolio: bicycle-leases
version: 1.0.0
least_share: 0.05
reasons:
  - {code: AMOUNT_REQUESTED, text: Amount of credit requested}
  - {code: APPLICANT_AGE, text: Age of applicant}
  - {code: DELINQUENT_OBLIGATIONS, text: Delinquent past credit obligations}
  - {code: EMPLOYMENT_NOT_STATED, text: Length of employment not stated}
  - {code: INCOME_INSUFFICIENT, text: Income insufficient for amount of credit requested}
  - {code: LENGTH_OF_EMPLOYMENT, text: Length of employment}
  - {code: PRICE_ABOVE_LIMIT, text: Price exceeds the limit of this product}
  - {code: PURPOSE_OF_LEASE, text: Purpose of the lease}
"""

SAFE: Application = {
    "age": 60,
    "income": 9000.0,
    "price": 300.0,
    "years_employed": 20.0,
    "history": "good",
    "use": "commuting",
}
"""Approved by both toy models."""

RISKY: Application = {
    "age": 19,
    "income": 400.0,
    "price": 6000.0,
    "years_employed": 0.0,
    "history": "poor",
    "use": "cargo",
}
"""Declined by both toy models, for its score alone."""


@cache
def schema() -> Schema:
    """The toy portfolio's schema."""
    return documents.parse(Schema, SCHEMA, "schema.yaml")


@cache
def policy() -> Policy:
    """The toy portfolio's policy."""
    return documents.parse(Policy, POLICY, "policy.yaml")


@cache
def reasons() -> ReasonDictionary:
    """The toy portfolio's approved reasons."""
    return documents.parse(ReasonDictionary, REASONS, "reasons.yaml")


def write_portfolio(root: Path) -> Path:
    """Write the portfolio's folder under ``root`` and return it."""
    folder = root / NAME
    folder.mkdir(parents=True)
    for name, text in (("schema", SCHEMA), ("policy", POLICY), ("reasons", REASONS)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def encoder() -> Encoder:
    """Nine columns: every kind that there is, and three that are reported under ``price``."""
    return Encoder(
        columns=(
            Column(name="age", kind="number", field="age", factor="age", center=40, scale=10),
            Column(name="income", kind="number", field="income", factor="income", log=True),
            Column(name="price", kind="number", field="price", factor="price", scale=1000),
            Column(
                name="price_to_income",
                kind="ratio",
                field="price",
                factor="price",
                denominator="income",
                denominator_fill=2000,
            ),
            Column(
                name="years_employed",
                kind="number",
                field="years_employed",
                factor="years_employed",
                fill=5,
            ),
            Column(
                name="years_employed_missing",
                kind="missing",
                field="years_employed",
                factor="years_employed",
            ),
            Column(name="history", kind="number", field="history", factor="history"),
            Column(name="use=cargo", kind="indicator", field="use", factor="use", category=0),
            Column(name="use=racing", kind="indicator", field="use", factor="use", category=2),
        )
    )


def forest() -> Ensemble:
    """Three trees over the columns of `encoder`; one tests a column twice on a path."""
    leaf = float("nan")
    nodes = [
        # column, threshold, default_left, left, right, value
        (3, 1.0, True, 1, 2, 0.0),  # price_to_income < 1
        (4, 3.0, False, 3, 4, 0.0),
        (3, 5.0, True, 5, 6, 0.0),  # ... and again
        (LEAF, leaf, False, 0, 0, -0.2),
        (LEAF, leaf, False, 0, 0, -1.5),
        (LEAF, leaf, False, 0, 0, 0.9),
        (LEAF, leaf, False, 0, 0, 2.0),
        (6, 0.5, False, 8, 9, 0.0),  # history is good
        (LEAF, leaf, False, 0, 0, -0.8),
        (0, -0.5, True, 10, 11, 0.0),  # younger than 35
        (LEAF, leaf, False, 0, 0, 1.1),
        (LEAF, leaf, False, 0, 0, 0.3),
        (1, 7.5, True, 13, 14, 0.0),  # log income
        (7, 0.5, True, 15, 16, 0.0),  # not for cargo
        (LEAF, leaf, False, 0, 0, -0.4),
        (LEAF, leaf, False, 0, 0, 0.1),
        (LEAF, leaf, False, 0, 0, 0.6),
    ]
    column, threshold, default_left, left, right, value = zip(*nodes, strict=True)
    return Ensemble(
        base=-0.7,
        roots=np.array([0, 7, 12], dtype=np.int32),
        column=np.array(column, dtype=np.int32),
        threshold=np.nan_to_num(np.array(threshold, dtype=np.float32)),
        default_left=np.array(default_left, dtype=np.bool_),
        left=np.array(left, dtype=np.int32),
        right=np.array(right, dtype=np.int32),
        value=np.array(value, dtype=np.float64),
    )


def spec(kind: Kind) -> ModelSpec:
    """What ``model.json`` holds for a toy package."""
    linear = Linear(coefficients=(-0.3, -0.5, 0.2, 0.25, -0.05, 0.4, 0.8, 0.3, 0.1), intercept=2.4)
    return ModelSpec(
        kind=kind,
        estimator="written by hand",
        encoder=encoder(),
        calibration=Calibration(slope=1.2, intercept=-0.1),
        linear=linear if kind == "linear" else None,
    )


def population() -> Profile:
    """A profile of the toy portfolio: income and price go together, one in five gives no years."""
    correlation = np.eye(7)
    correlation[1, 2] = correlation[2, 1] = 0.6
    return Profile(
        group="made-up applicants",
        rows=1000,
        marginals=(
            Marginal(
                field="age",
                missing=0.0,
                quantiles=(19, 24, 29, 35, 42, 50, 61, 78),
                edges=(29, 42),
                bins=(0.375, 0.25, 0.375),
            ),
            Marginal(
                field="income",
                missing=0.0,
                quantiles=(400, 900, 1500, 2200, 3100, 4500, 7000, 15000),
                edges=(1500, 3100),
                bins=(0.375, 0.25, 0.375),
            ),
            Marginal(
                field="price",
                missing=0.0,
                quantiles=(120, 300, 600, 900, 1400, 2500, 5000, 16000),
                edges=(600, 1400),
                bins=(0.375, 0.25, 0.375),
            ),
            Marginal(
                field="years_employed",
                missing=0.2,
                quantiles=(0, 0.5, 1, 2, 4, 7.5, 12, 25),
                edges=(1, 4),
                bins=(0.3, 0.2, 0.3),
            ),
            Marginal(field="history", missing=0.0, shares=(0.6, 0.3, 0.1), bins=(0.6, 0.3, 0.1)),
            Marginal(field="use", missing=0.0, shares=(0.2, 0.5, 0.3), bins=(0.2, 0.5, 0.3)),
        ),
        correlation=tuple(tuple(row) for row in correlation.tolist()),
        missing_order=("years_employed",),
        score_edges=(0.1, 0.4),
        score_bins=(0.5, 0.3, 0.2),
    )


def reference(rows: int = 50) -> Floats:
    """The reference group of the toy packages, shape (rows, 6)."""
    return profile.draw(population(), schema(), rows, seed=7)


def reference_columns(rows: int = 50) -> npt.NDArray[np.float32]:
    """The reference group as the toy models' columns, shape (rows, 9)."""
    encoder = spec("trees").encoder
    assert encoder is not None
    return encoder.plan(schema()).encode(reference(rows))


def applications(rows: int, seed: int = 11) -> list[Application]:
    """Drawn applications that satisfy the toy schema."""
    drawn = profile.draw(population(), schema(), rows, seed)
    return [schema().application(row) for row in drawn.tolist()]


def build(kind: Kind) -> Model:
    """The toy model itself."""
    return model.build(spec(kind), schema(), _arrays(kind), reference())


def _arrays(kind: Kind) -> dict[str, npt.NDArray[Any]]:
    if kind == "linear":
        return {}
    return forest().arrays() if kind == "trees" else network().arrays()


def network() -> Network:
    """Nine columns, two layers of units and the score; of applicants some are below any cut-off."""
    return made_up(columns=9, hidden=(6, 4), seed=2)


def package_files(kind: Kind) -> dict[str, bytes]:
    """Every file of a toy package but its manifest, ready to be altered."""
    return dict(_package_files(kind))


@cache
def _package_files(kind: Kind) -> dict[str, bytes]:
    records = [SAFE, RISKY, *applications(6)]
    parts = Parts(schema(), policy(), reasons(), build(kind))
    provenance = Provenance(
        trained_on={"name": "nothing: the numbers were written down"},
        settings={},
        libraries={},
        reference=package.ReferenceGroup(
            name="made-up-applicants", description="50 drawn applicants", rows=50, seed=7
        ),
    )
    files = {
        "schema.yaml": SCHEMA.encode(),
        "policy.yaml": POLICY.encode(),
        "reasons.yaml": REASONS.encode(),
        "model.json": _json(spec(kind)),
        "profile.json": _json(population()),
        "reference.npz": package.npz({"rows": reference()}),
        "golden.json": _json(golden_records(parts, records)),
        "metrics.json": json.dumps({"rows": 0}).encode(),
        "provenance.json": _json(provenance),
        "card.md": b"# A toy\n",
    }
    if kind == "network":
        files["network.onnx"] = onnx_format.write(network())
    if kind == "trees":
        arrays = forest().arrays()
        files["trees.npz"] = package.npz(arrays)
        counted = model.count_reference(spec(kind), schema(), arrays, reference())
        files["explanation.npz"] = package.npz(counted)
    return files


def write_package(root: Path, kind: Kind, **altered: bytes | None) -> Path:
    """Write a toy package under ``root`` and return its folder.

    ``altered`` replaces files, or leaves them out where None, before the sums are taken; a name
    is given with underscores for dots (``model_json``).
    """
    files: dict[str, bytes | None] = {**package_files(kind)}
    files |= {name.replace("_", "."): content for name, content in altered.items()}
    return package.write(root, NAME, {n: c for n, c in files.items() if c is not None})


def load_package(kind: Kind) -> ModelPackage:
    """A loaded toy package; its folder is gone, and nothing of it is read again."""
    with tempfile.TemporaryDirectory() as root:
        return package.load(write_package(Path(root), kind))


def edited(text: bytes, change: dict[str, Any]) -> bytes:
    """A JSON object with some of its keys replaced."""
    return json.dumps(json.loads(text) | change).encode()


def _json(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=1).encode()


def unasked() -> Batcher:
    """The queue of a challenger whom nobody asks."""
    return Batcher(cast("BatchObserver", None), 1)
