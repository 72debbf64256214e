"""How the same applications are put to different servers, and how the PDs are read back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peer import FormatName
    from credit_risk.schema import Application, FieldSpec, Schema


def single(form: FormatName, application: Application, schema: Schema) -> str:
    """The request body for one application."""
    if form == "dataframe":
        return _json({"dataframe_records": [application]})
    if form == "tensors":
        inputs = [_tensor(spec, application[spec.name]) for spec in schema.fields]
        return _json(
            {
                "parameters": {"content_type": "pd"},
                "inputs": inputs,
                "outputs": [{"name": "predict_proba"}],
            }
        )
    return _json(application)


def batch(applications: Sequence[Application]) -> str:
    """The request body for many applications, of the servers that have such a call."""
    return _json({"applications": list(applications)})


def single_pd(form: FormatName, answer: Any) -> float:  # noqa: ANN401 - any server's JSON
    """The PD in the answer to `single`.

    Raises:
        KeyError, IndexError, TypeError: it is not where this format has it.
    """
    if form == "dataframe":
        return float(answer["predictions"][0][1])
    if form == "tensors":
        return float(answer["outputs"][0]["data"][1])
    return float(answer["probability_of_default"])


def batch_pds(answer: Any) -> list[float]:  # noqa: ANN401 - as above
    """The PDs in the answer to `batch`; raises as `single_pd`."""
    return [float(result["probability_of_default"]) for result in answer["results"]]


def _tensor(spec: FieldSpec, value: object) -> dict[str, object]:
    """A column of one value in the Open Inference Protocol, as MLServer's pandas codec reads it."""
    tensor: dict[str, object] = {"name": spec.name, "shape": [1], "data": [value]}
    if spec.is_category:
        return tensor | {"datatype": "BYTES", "parameters": {"content_type": "str"}}
    return tensor | {"datatype": "FP64"}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
