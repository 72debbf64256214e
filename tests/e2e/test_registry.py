"""The real registry: MLflow on PostgreSQL with its artefacts in S3, and a real server beside it.

`make test-registry` fetches what it needs, and runs these.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import package
from credit_risk.errors import PackageNotFound, RegistryUnavailable
from credit_risk.manifest import STATUS_TAG
from credit_risk.serving.registry import CHALLENGER, CHAMPION, Registry
from credit_risk.settings import PREFIX
from loadtests import registry
from tests import leases, toys

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / ".tools" / "tracking"
"""MLflow's client, where `make install-tracking` puts it."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CLIENT.is_dir(), reason="MLflow is not here: make test-registry"),
]


@dataclass
class Place:
    """A portfolio, its data files, and the settings of all commands about it."""

    folder: Path
    stack: registry.Stack
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        portfolio = toys.write_portfolio(self.folder / "portfolios")
        (portfolio / "training.yaml").write_text(leases.TRAINING, encoding="utf-8")
        (self.folder / "none").mkdir()
        self.settings = {
            "PORTFOLIO": toys.NAME,
            "STATE_DIR": str(self.folder / "state"),
            "CREDIT_RISK_PORTFOLIOS_DIR": str(self.folder / "portfolios"),
            "CREDIT_RISK_PACKAGES_DIR": str(self.folder / "none"),
            "CREDIT_RISK_REGISTRY_URI": self.stack.url,
        }

    def run(self, *arguments: str, code: int = 0, **more: str) -> str:
        """What a command prints that ends with that exit code."""
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "credit_risk.cli", *arguments],
            env={
                **{name: v for name, v in os.environ.items() if not name.startswith(PREFIX)},
                "PYTHONPATH": str(CLIENT),
                **self.settings,
                **more,
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def read(self, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
        """What a command prints as JSON, runs of training tracked."""
        return json.loads(self.run(*arguments, "--json", MLFLOW_TRACKING_URI=self.stack.url))

    def train(self, rows: int) -> dict[str, Any]:
        """Train on so many leases, tracked; what is printed of it."""
        data = leases.write_labelled(self.folder / f"leases-{rows}.csv", rows)
        command = ("train", "--data", str(data), "--estimator", "logistic-regression")
        trained: dict[str, Any] = self.read(*command)
        return trained


@pytest.fixture(scope="module")
def stack() -> Iterator[registry.Stack]:
    """The real registry."""
    try:
        with registry.running() as running:
            yield running
    except registry.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def place(stack: registry.Stack, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A portfolio that has nothing yet."""
    return Place(tmp_path_factory.mktemp("place"), stack)


@pytest.fixture(scope="module")
def trained(place: Place) -> list[dict[str, Any]]:
    """Two packages, trained and registered."""
    return [place.train(600), place.train(1_200)]


def test_what_is_trained_is_tracked_and_registered(
    place: Place, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Parameters, figures, data and files are in the run; what is fetched is what was trained."""
    one, two = trained
    assert [made["registered"]["number"] for made in trained] == ["1", "2"]

    with contextlib.closing(Registry(place.stack.url)) as asked:
        found = asked.find(toys.NAME, two["version"])
        fetched = package.load(asked.download(found, tmp_path), two["version"])
        run = asked._get("runs/get", run_id=two["registered"]["run_id"])["run"]  # noqa: SLF001

    assert found.tags["validation_status"] == "pending"
    assert fetched.digest == found.package_sha256
    known = {p["key"]: p["value"] for p in run["data"]["params"]}
    assert known["estimator"] == "logistic-regression"
    assert known["data.sha256"] == fetched.provenance.trained_on["sha256"]  # type: ignore[index]
    figures = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    assert figures["hold_out.roc_auc"] == pytest.approx(two["hold_out"]["roc_auc"])
    assert run["info"]["status"] == "FINISHED"
    (data,) = run["inputs"]["dataset_inputs"]
    assert data["dataset"]["name"] == "Made-up leases"
    assert one["version"] != two["version"]


def test_the_same_package_is_registered_once(place: Place, trained: list[dict[str, Any]]) -> None:
    """Whoever makes it again; the run is another one."""
    again = place.train(600)

    assert again["version"] == trained[0]["version"]
    assert again["registered"] == trained[0]["registered"]


def test_the_registry_answers_as_the_one_in_the_other_tests_does(
    place: Place, trained: list[dict[str, Any]]
) -> None:
    """Aliases that there are none of, pages, and packages that nobody registered."""
    versions = [made["version"] for made in trained]
    with contextlib.closing(Registry(place.stack.url)) as asked:
        assert asked.aliased(toys.NAME, "nobody") is None
        assert asked.aliased("no-such-portfolio", CHAMPION) is None
        assert list(asked.versions("no-such-portfolio")) == []
        assert [found.package_version for found in asked.versions(toys.NAME)] == versions[::-1]
        with pytest.raises(PackageNotFound):
            asked.find(toys.NAME, "0" * 12)
        with pytest.raises(RegistryUnavailable, match="answers 404"):
            asked.move(toys.NAME, CHALLENGER, "99")
        found = asked.find(toys.NAME, versions[0])
        asked.tag(found, STATUS_TAG, "approved")
        asked.move(toys.NAME, CHALLENGER, found.number)

        named = asked.aliased(toys.NAME, CHALLENGER)

    assert named is not None
    assert named.package_version == versions[0]
    assert named.tags[STATUS_TAG] == "approved"
    shown = place.read("registry", "status")
    assert [row["aliases"] for row in shown["versions"]] == [[], ["challenger"]]


def test_what_cannot_be_tracked_is_told_before_anything_is_trained(place: Place) -> None:
    """By the variable that says where; with no password that may be in it."""
    data = leases.write_labelled(place.folder / "leases.csv", 200)
    away = "http://ada:secret@127.0.0.1:9"
    said = place.run("train", "--data", str(data), code=1, MLFLOW_TRACKING_URI=away)

    assert "MLflow does not answer, and nothing was begun (MLFLOW_TRACKING_URI" in said
    assert "secret" not in said
