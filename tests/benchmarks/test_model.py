"""The model and rows of a run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pytest

from benchmarks import model
from credit_risk import package
from credit_risk.model import probability
from credit_risk.scoring import check_golden, decide
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from benchmarks.model import Material
    from credit_risk.package import ModelPackage

    Floats = npt.NDArray[np.float64]


class Unexplained:
    """A model that can score, and fails when it is asked for contributions."""

    def __init__(self, scoring: ModelPackage) -> None:
        self.log_odds = scoring.model.log_odds
        self.base_value = scoring.model.base_value
        self.method, self.reference_rows, self.slow = "none", 0, False

    def contributions(self, rows: Floats) -> Floats:
        """Fail."""
        raise AssertionError(len(rows))


def test_this_server_serves_what_the_others_unpickle(material: Material) -> None:
    """Compiled, and with the PDs of the pipeline itself for every row of the loads."""
    loaded = package.load(material.package)
    fitted = joblib.load(material.pipeline)

    assert loaded.spec.kind == "trees"
    assert fitted[-1].n_estimators == 500
    for load, bodies in (
        ("predict", [[row] for row in material.rows]),
        ("declined", [[row] for row in material.declined]),
        ("batch", material.batches),
    ):
        rows = list(itertools.chain.from_iterable(bodies))
        served = probability(loaded.model.log_odds(loaded.schema.matrix(rows)))
        expected = list(itertools.chain.from_iterable(material.pds[load]))
        assert served == pytest.approx(expected, abs=1e-6)
        assert [len(body) for body in bodies] == [len(pds) for pds in material.pds[load]]


def test_the_rows_declined_are_declined_by_the_score(material: Material) -> None:
    """So each of their decisions is explained; most of the others' is not."""
    loaded = package.load(material.package)
    shares = [
        np.mean([decision.outcome.scored == "DECLINE" for decision in decide(loaded, rows)])
        for rows in (material.declined, material.rows)
    ]

    assert len(material.declined) == len(material.rows) == model.ROWS
    assert shares[0] == 1.0
    assert shares[1] < 0.5


def test_both_packages_are_what_their_folders_ship(material: Material) -> None:
    """A server that is pointed at the folder serves them without being told which."""
    for packages in (material.packages, material.packages_approving):
        folder = packages / model.PORTFOLIO
        check_golden(package.load(folder / (folder / "default").read_text(encoding="utf-8")))


def test_the_approving_package_needs_no_contributions(tmp_path: Path) -> None:
    """Same scores, same rules, and no reason that the score would have to give."""
    loaded = package.load(package.write(tmp_path / "own", toys.NAME, toys.package_files("trees")))
    approving = package.load(model.approving(loaded, tmp_path / "approving"))
    rows = toys.applications(200)
    before = decide(loaded, rows)
    after = decide(replace(approving, model=Unexplained(loaded)), rows)

    assert {decision.outcome.scored for decision in before} > {"APPROVE"}
    assert {decision.outcome.scored for decision in after} == {"APPROVE"}
    assert [d.log_odds for d in after] == [d.log_odds for d in before]
    assert all(reason.contribution is None for d in after for reason in d.reasons)
    check_golden(approving)
