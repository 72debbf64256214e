"""Bulk scoring beside XGBoost: the same rows, the same scores, then times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import bulk
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.model import Material


def test_a_table_holds_what_the_rows_say() -> None:
    """Names, whole numbers, and nothing where a value is missing."""
    schema = toys.schema()
    applications = [*toys.applications(40), toys.SAFE | {"years_employed": None}]

    found = bulk.table(schema, schema.matrix(applications))

    assert found.to_pylist() == [{**dict.fromkeys(schema.names), **a} for a in applications]
    assert found.schema.field("age").type == pa.int64()


def test_both_sides_are_measured_on_the_same_scores(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several pieces; where XGBoost's scores are others, nothing is told."""
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 300)
    monkeypatch.setattr(bulk, "ROUNDS", 1)

    figures = bulk.measure(material, tmp_path, 700)

    assert figures["rows"] == 700
    assert figures["share"] == pytest.approx(
        figures["our_rows_a_second"] / figures["xgboost_rows_a_second"]
    )
    assert np.isfinite(list(figures.values())).all()
    assert figures["our_megabytes"] > 10
    monkeypatch.setattr(bulk, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="other scores"):
        bulk.measure(material, tmp_path, 700)
