"""The network's training: promises are kept by weights' signs, and PyTorch is asked for by name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk.training import network
from credit_risk.training.network import NetworkClassifier, TorchMissing
from credit_risk.training.rounding import rounded
from tests.torches import needs_torch

if TYPE_CHECKING:
    from pathlib import Path

GENERATOR = np.random.default_rng(0)
COLUMNS = GENERATOR.normal(size=(400, 4)).astype(np.float32)
# Column 0 falls and column 1 rises against their promises; 2 bends; 3 is noise.
RISK = -1.5 * COLUMNS[:, 0] + COLUMNS[:, 1] + np.abs(COLUMNS[:, 2])
LABELS = (GENERATOR.random(400) < 1 / (1 + np.exp(-RISK))).astype(int)
SIGNS = (1, -1, 0, 0)


def _fitted(signs: tuple[int, ...] = SIGNS, seed: int = 0) -> NetworkClassifier:
    return NetworkClassifier(
        signs, hidden=(9, 6), epochs=20, batch_rows=50, learning_rate=0.02, seed=seed
    ).fit(COLUMNS, LABELS)


@needs_torch
def test_a_promised_column_moves_the_score_one_way_only_whatever_the_data_say() -> None:
    """Anywhere, exactly; one that is free goes where the data lead."""
    bound, free = _fitted(), _fitted((0, 0, 0, 0))
    for column, sign in ((0, 1), (1, -1)):
        moved = np.repeat(COLUMNS[:50, np.newaxis], 60, axis=1)
        moved[:, :, column] = np.linspace(-6, 6, 60)
        steps, freely = (
            sign * np.diff(f.decision_function(moved.reshape(-1, 4)).reshape(50, 60), axis=1)
            for f in (bound, free)
        )

        assert steps.min() >= -1e-12
        assert freely.min() < -0.05
    bends = np.zeros((3, 4), dtype=np.float32)
    bends[:, 2] = (-2, 0, 2)
    low, middle, high = bound.decision_function(bends)
    assert middle < min(low, high)


@needs_torch
def test_what_is_served_is_what_pytorch_computes() -> None:
    """To a millionth of a millionth; the weights are those that are stored."""
    fitted = _fitted()
    served = fitted.network()

    np.testing.assert_allclose(
        served.scores(COLUMNS), fitted.decision_function(COLUMNS), atol=1e-12
    )
    for layer in served.layers:
        assert layer.weights.tolist() == rounded(layer.weights.tolist())
    assert [layer.weights.shape for layer in served.layers] == [(9, 4), (6, 9), (1, 6)]


@needs_torch
def test_one_seed_gives_one_network_and_leaves_others_draws_alone() -> None:
    """Whatever was drawn before; the seed and the threads of the process are as they were."""
    import torch  # noqa: PLC0415 - not in every environment

    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)

    one = _fitted()

    assert torch.rand(3).tolist() == expected
    assert torch.get_num_threads() == threads
    scores = one.decision_function(COLUMNS)
    assert _fitted().decision_function(COLUMNS).tobytes() == scores.tobytes()
    assert (_fitted(seed=1).decision_function(COLUMNS) != scores).any()
    assert (one.predict(COLUMNS) == (scores > 0)).all()


def test_without_pytorch_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; nothing else of training needs it."""
    monkeypatch.setattr(network, "is_available", lambda: False)

    with pytest.raises(TorchMissing, match="make install-network"):
        NetworkClassifier((0, 0, 0, 0)).fit(COLUMNS, LABELS)


@pytest.mark.parametrize(
    "broken", ["", "raise ImportError('a secret path')", "raise OSError('libtorch.so')"]
)
def test_a_pytorch_that_cannot_be_imported_is_told_as_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A package that only has its name, a library that does not load: what to do, in one line."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # so that what is imported here does not stay
    monkeypatch.delitem(sys.modules, "torch")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(broken, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        TorchMissing, match=r"cannot be imported \(.*Error\): .make install-network"
    ):
        network.check()
