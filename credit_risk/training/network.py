"""A feed-forward network as a scikit-learn classifier, fitted with PyTorch.

PyTorch is the optional extra ``network``: it is imported when a network is fitted or scored, and
nothing else here or in the server needs it. Everything is in float64, on one thread and from one
seed, so that the same rows give the same network.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from credit_risk.errors import CreditRiskError
from credit_risk.network import Layer, Network
from credit_risk.training.rounding import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class TorchMissing(CreditRiskError):
    """A network is to be fitted where PyTorch is not installed, or cannot be imported."""


def is_available() -> bool:
    """Whether PyTorch is installed."""
    return find_spec("torch") is not None


def check() -> None:
    """Find out whether a network can be fitted here, before it takes long.

    Raises:
        TorchMissing: it cannot; the error says why, and what to do.
    """
    _torch()


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A feed-forward network of rectified units, whose ``decision_function`` is its log-odds.

    Minimises the mean logistic loss with AdamW (Loshchilov and Hutter, ICLR 2019), the rate rising
    and falling once over all steps (Smith and Topin 2018); no row is kept aside to stop early, so
    every fit sees the same share of the rows.

    Promised directions are kept by the weights' signs. Half of each hidden layer's units *rise*:
    they never fall as the risk of a promised column rises, because what comes to them from such a
    column has its sign, and what comes from a unit that rises is not negative. The other half, and
    it alone, sees no promised column, and is free (the constraints of Archer and Wang, Decision
    Sciences 24, 1993, for some of the columns). After each step weights are set back to what they
    may be.

    Args:
        signs: of each column, 1 where the score must not fall as it rises, -1 where it must not
            rise, 0 where it is free.
        hidden: units of each hidden layer.
        epochs: how often every row is seen.
        batch_rows: rows of a step.
        learning_rate: the highest.
        weight_decay: AdamW's.
        seed: of the first weights and of the order of the rows.
    """

    def __init__(
        self,
        signs: Sequence[int],
        *,
        hidden: Sequence[int] = (32, 32),
        epochs: int = 40,
        batch_rows: int = 256,
        learning_rate: float = 0.005,
        weight_decay: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.signs = signs
        self.hidden = hidden
        self.epochs = epochs
        self.batch_rows = batch_rows
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed

    def fit(self, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> NetworkClassifier:
        """Fit to columns of comparable scale, shape (n, columns), and two classes.

        Raises:
            TorchMissing: PyTorch is not installed, or cannot be imported.
        """
        torch = _torch()
        self.classes_ = np.unique(y)
        labels = torch.from_numpy(np.where(np.asarray(y) == self.classes_[1], 1.0, 0.0))
        columns = torch.from_numpy(np.asarray(X, dtype=np.float64))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums depend on how many threads share them
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                module = self._module(torch, columns.shape[1])
                self._descend(torch, module, columns, labels)
        finally:
            torch.set_num_threads(threads)
        with torch.no_grad():
            for parameter in module.parameters():
                # As it is packaged, so that what is calibrated is what will decide.
                parameter.copy_(torch.tensor(rounded(parameter.tolist()), dtype=torch.float64))
        self.module_ = module.eval()
        return self

    def _module(self, torch: Any, columns: int) -> Any:  # noqa: ANN401 - of a library without us
        widths = (columns, *self.hidden)
        layers: list[Any] = []
        for inputs, units in zip(widths, self.hidden, strict=False):
            layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1)).double()

    def _descend(self, torch: Any, module: Any, columns: Any, labels: Any) -> None:  # noqa: ANN401
        rows = len(columns)
        steps = self.epochs * -(-rows // self.batch_rows)
        optimiser = torch.optim.AdamW(module.parameters(), weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.learning_rate, total_steps=steps + 1
        )
        bounds = self._bounds(torch, module)
        loss = torch.nn.BCEWithLogitsLoss()
        for _ in range(self.epochs):
            order = torch.randperm(rows)
            for first in range(0, rows, self.batch_rows):
                places = order[first : first + self.batch_rows]
                optimiser.zero_grad()
                loss(module(columns[places])[:, 0], labels[places]).backward()
                optimiser.step()
                with torch.no_grad():
                    for weights, least, most in bounds:
                        weights.clamp_(least, most)
                schedule.step()

    def _bounds(self, torch: Any, module: Any) -> list[tuple[Any, Any, Any]]:  # noqa: ANN401
        """Each layer's weights, the least and the most that they may be."""
        bounds = []
        sign = np.asarray(self.signs)
        for layer in module[::2]:
            units = len(layer.bias)
            # The score itself rises.
            rises = np.arange(units) < (units + 1) // 2
            free = sign == 0
            least = np.where(rises[:, np.newaxis] & (sign <= 0) | free, -np.inf, 0.0)
            most = np.where(rises[:, np.newaxis] & (sign >= 0) | free, np.inf, 0.0)
            bounds.append((layer.weight, torch.from_numpy(least), torch.from_numpy(most)))
            sign = rises.astype(int)
        return bounds

    def decision_function(self, X: npt.NDArray[Any]) -> Floats:
        """Log-odds as PyTorch computes them, shape (n,)."""
        check_is_fitted(self)
        torch = _torch()
        with torch.no_grad():
            score: Floats = self.module_(torch.from_numpy(np.asarray(X, dtype=np.float64)))[:, 0]
            return np.asarray(score)

    def predict(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The more probable class."""
        classes: npt.NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(int)]
        return classes

    def network(self) -> Network:
        """The fitted network without PyTorch."""
        check_is_fitted(self)
        linear = [layer for layer in self.module_ if hasattr(layer, "weight")]
        return Network(
            tuple(
                Layer(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
                for layer in linear
            )
        )


def _torch() -> Any:  # noqa: ANN401 - a library that is not in every environment
    remedy = "`make install-network`, then PYTHONPATH=.tools/network"
    if not is_available():
        raise TorchMissing(f"PyTorch, which fits neural networks, is not installed: {remedy}")
    try:
        # With `nn`, which is not in what has nothing but the name.
        import torch.nn  # noqa: PLC0415 - optional, and takes seconds to import
    except (ImportError, OSError) as error:  # the latter by a library that cannot be loaded
        why = f"cannot be imported ({type(error).__name__})"
        raise TorchMissing(f"PyTorch, which fits neural networks, {why}: {remedy}") from error
    return torch
