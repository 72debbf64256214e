"""Hypothesis strategies that derive from a schema, as everything else does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from credit_risk.schema import Application, FieldSpec, Schema


def values(spec: FieldSpec) -> SearchStrategy[Any]:
    """Values that the field allows, None among them where it is nullable."""
    if spec.is_category:
        present: SearchStrategy[Any] = st.sampled_from(spec.categories)
    elif spec.type == "integer":
        present = st.integers(int(spec.minimum or 0), int(spec.maximum or 0))
    else:
        present = st.floats(spec.minimum, spec.maximum)
    return st.none() | present if spec.nullable else present


def applications(schema: Schema) -> SearchStrategy[Application]:
    """Applications that satisfy the schema; nullable fields are given, null or left out."""
    return st.fixed_dictionaries(
        {f.name: values(f) for f in schema.fields if not f.nullable},
        optional={f.name: values(f) for f in schema.fields if f.nullable},
    )
