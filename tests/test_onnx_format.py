"""A network's file: read as it was written, by us and by ONNX Runtime; anything else is refused."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import onnx_format
from credit_risk.errors import PackageInvalid
from tests.networks import made_up

NETWORK = made_up(columns=7, hidden=(5, 4))
FILE = onnx_format.write(NETWORK)


def test_what_was_written_is_read_to_the_last_bit() -> None:
    """Every weight and bias, whatever the number of layers."""
    for hidden in ((), (3,), (5, 4), (2, 130, 3)):
        network = made_up(columns=7, hidden=hidden)

        again = onnx_format.read(onnx_format.write(network))

        assert len(again.layers) == len(hidden) + 1
        for one, other in zip(network.layers, again.layers, strict=True):
            np.testing.assert_array_equal(one.weights, other.weights)
            np.testing.assert_array_equal(one.biases, other.biases)


def test_the_same_network_is_the_same_bytes() -> None:
    """A package's version is derived from them."""
    assert onnx_format.write(made_up(columns=7, hidden=(5, 4))) == FILE


@pytest.mark.skipif(
    not find_spec("onnxruntime"),
    reason="ONNX Runtime is not here: `make test-network` installs it",
)
def test_onnx_runtime_scores_it_alike() -> None:
    """The file is what it says: checked by its makers, and computed by another program."""
    onnx, runtime = (importlib.import_module(name) for name in ("onnx", "onnxruntime"))
    columns = np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32)

    onnx.checker.check_model(onnx.load_from_string(FILE), full_check=True)
    session = runtime.InferenceSession(FILE)
    (scores,) = session.run([onnx_format.OUTPUT], {onnx_format.INPUT: columns})

    assert scores.shape == (50, 1)
    np.testing.assert_allclose(scores[:, 0], NETWORK.scores(columns), atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"Relu", b"Tanh", "operator Tanh there is none of in a dense network"),
        (b"Cast", b"Relu", "operator Relu there is none of in a dense network"),
        (b"Gemm", b"Conv", "operator Conv there is none of in a dense network"),
        (b"transB", b"transA", "Gemm: other than weights"),
        (b"weights_1", b"weights_9", "Gemm: weights that are not in the file"),
        (b"rectified_0", b"rectified_1", "does not take what the operation before it gave"),
        (b"score", b"other", "the last operation does not give the score"),
        (b"weights_0", b"\xff\xff\xff\xff\xff\xff\xff_0", "a name that is no text"),
    ],
)
def test_a_file_of_another_model_is_refused_by_what_is_wrong(
    old: bytes, new: bytes, why: str
) -> None:
    """Nothing in it is passed over."""
    with pytest.raises(PackageInvalid, match=why):
        onnx_format.read(FILE.replace(old, new, 1))


def test_a_file_cut_off_anywhere_is_refused() -> None:
    """After each of its bytes."""
    for length in range(len(FILE)):
        with pytest.raises(PackageInvalid):
            onnx_format.read(FILE[:length])


@given(st.binary(max_size=60), st.integers(min_value=0, max_value=len(FILE)))
def test_whatever_a_file_holds_it_is_a_network_or_refused(junk: bytes, at: int) -> None:
    """No other error, be it junk alone or in the midst of a file."""
    for content in (junk, FILE[:at] + junk + FILE[at + len(junk) :]):
        try:
            network = onnx_format.read(content)
        except PackageInvalid:
            continue
        assert np.isfinite(network.layers[-1].biases).all()
