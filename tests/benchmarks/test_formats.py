"""The same application in every server's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import formats
from tests import toys

if TYPE_CHECKING:
    from benchmarks.peer import FormatName
    from credit_risk.schema import Schema

(APPLICATION,) = toys.applications(1)


def test_a_record_is_the_application_itself(schema: Schema) -> None:
    """As this server and the usual ones take it."""
    assert json.loads(formats.single("record", APPLICATION, schema)) == APPLICATION


def test_a_data_frame_has_it_as_its_only_row(schema: Schema) -> None:
    """As MLflow takes it."""
    body = json.loads(formats.single("dataframe", APPLICATION, schema))
    assert body == {"dataframe_records": [APPLICATION]}


def test_tensors_have_a_column_for_each_field(schema: Schema) -> None:
    """As the Open Inference Protocol has it; words are bytes, numbers are not."""
    body = json.loads(formats.single("tensors", APPLICATION, schema))
    types = {one["name"]: one["datatype"] for one in body["inputs"]}

    assert {one["name"]: one["data"] for one in body["inputs"]} == {
        name: [value] for name, value in APPLICATION.items()
    }
    assert types == {f.name: "BYTES" if f.is_category else "FP64" for f in schema.fields}


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("record", {"probability_of_default": 0.25, "decision": "REVIEW"}),
        ("dataframe", {"predictions": [[0.75, 0.25]]}),
        ("tensors", {"outputs": [{"name": "predict_proba", "data": [0.75, 0.25]}]}),
    ],
)
def test_the_pd_is_read_back(form: FormatName, answer: object) -> None:
    """The chance of class 1, not of class 0."""
    assert formats.single_pd(form, answer) == 0.25


def test_a_batch_is_answered_in_order() -> None:
    """The same body and answer for all who have the call; a row refused is no PD."""
    rows = toys.applications(2)
    results: list[object] = [{"probability_of_default": 0.5}, {"probability_of_default": 0.25}]

    assert json.loads(formats.batch(rows)) == {"applications": rows}
    assert formats.batch_pds({"results": results}) == [0.5, 0.25]
    with pytest.raises(KeyError):
        formats.batch_pds({"results": [{"problem": {}}]})
