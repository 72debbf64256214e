"""The real registry: MLflow on PostgreSQL with its artefacts in S3, and a real server beside it.

`make test-registry` fetches what it needs, and runs these.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from credit_risk import package
from credit_risk.errors import PackageNotFound, RegistryUnavailable
from credit_risk.manifest import STATUS_TAG
from credit_risk.serving.registry import CHALLENGER, CHAMPION, Registry
from credit_risk.settings import PREFIX
from loadtests import registry
from tests import leases, toys
from tests.e2e.conftest import RunningServer
from tests.sealing import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
"""Long enough on any machine."""
SHADOWED = 200
"""Applicants that a candidate has to have been asked about."""
CLIENT = ROOT / ".tools" / "tracking"
"""MLflow's client, where `make install-tracking` puts it."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CLIENT.is_dir(), reason="MLflow is not here: make test-registry"),
]


FILES = {
    "training.yaml": leases.TRAINING,
    "validation.yaml": f"""\
portfolio: {toys.NAME}
version: '1'
least_rows: 100
least_of_each: 20
limits: {{field_psi: {{}}, score_psi: {{}}, missing_rise: {{}}, default_rate: {{}}}}
""",
    "promotion.yaml": f"""\
portfolio: {toys.NAME}
version: 1.0.0
approvals: 2
criteria:
  auc_loss: {{most: 0.2}}
  additivity_error: {{most: 1.0e-6}}
  shadow_rows: {{least: {SHADOWED}}}
  shadow_failures: {{most: 0.0}}
  agreement: {{least: 0.5}}
""",
}


@dataclass
class Place:
    """A portfolio, its data files, and the settings of all commands about it."""

    folder: Path
    stack: registry.Stack
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        portfolio = toys.write_portfolio(self.folder / "portfolios")
        for name, text in FILES.items():
            (portfolio / name).write_text(text, encoding="utf-8")
        (self.folder / "none").mkdir()
        self._make_keys()
        self.settings = {
            "PORTFOLIO": toys.NAME,
            "CREDIT_RISK_STATE_DIR": str(self.folder / "state"),
            "CREDIT_RISK_PORTFOLIOS_DIR": str(self.folder / "portfolios"),
            "CREDIT_RISK_PACKAGES_DIR": str(self.folder / "none"),
            "CREDIT_RISK_REGISTRY_URI": self.stack.url,
            "CREDIT_RISK_REGISTRY_POLL_SECONDS": "0.5",
            "CREDIT_RISK_ENCRYPTION_KEYS": KEY,
            "CREDIT_RISK_SIGNING_KEY_FILE": str(self.key("signing")),
            "CREDIT_RISK_APPROVERS_FILE": str(self.folder / "approvers.yaml"),
        }

    @property
    def server(self) -> dict[str, str]:
        """The same for a server, which has a state directory of its own."""
        return {
            name.removeprefix(PREFIX).lower(): value
            for name, value in self.settings.items()
            if name.startswith(PREFIX) and name != f"{PREFIX}STATE_DIR"
        }

    def key(self, name: str) -> Path:
        """Somebody's private key."""
        return self.folder / f"{name}.pem"

    def _make_keys(self) -> None:
        """Keys of two who may approve, and of what signs checkpoints."""
        public = {}
        for name in ("ada", "ben", "signing"):
            made = Ed25519PrivateKey.generate()
            private = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.key(name).write_bytes(private)
            self.key(name).chmod(0o600)
            public[name] = made.public_key().public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
        approvers = {name: public[name].decode() for name in ("ada", "ben")}
        text = json.dumps(approvers)
        (self.folder / "approvers.yaml").write_text(text, encoding="utf-8")

    def run(self, *arguments: str, code: int | None = 0, **more: str) -> str:
        """What a command prints; it ends with that exit code, or fails in its own way if None."""
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
        assert done.returncode == code or (code is None and done.returncode), done.stderr
        return done.stderr if code else done.stdout

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


# With a server


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


CONNECTIONS = 16
"""With fewer, those of a whole round would too often be taken by the same of two workers."""


@dataclass
class Traffic:
    """Applicants who apply one after the other; ``answers`` are statuses and who decided."""

    url: str
    answers: list[tuple[int, str | None]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def apply(self, number: int = 10) -> set[tuple[int, str | None]]:
        """Some apply now; what they are answered."""
        begun = len(self.answers)
        with httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False) as client:
            for application in toys.applications(number, seed=begun):
                answer = client.post("/predict", json=application)
                self.answers.append((answer.status_code, answer.json().get("model_version")))
        return set(self.answers[begun:])

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """They keep applying while the block runs."""
        self._stop.clear()
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            self.apply()


def test_whatever_of_the_registry_is_away_no_decision_fails(
    place: Place, trained: list[dict[str, Any]], start: Callable[..., RunningServer]
) -> None:
    """MLflow, its S3 and its database, each while a server runs and when it starts.

    The records lie elsewhere: without their database nothing is decided, registry or not.
    """
    one, two = (made["version"] for made in trained)
    mine = {**place.server, "state_dir": str(place.folder / "mine")}
    place.run("registry", "move", one)
    running = start(portfolio=toys.NAME, **mine)
    assert Traffic(running.url).apply() == {(200, one)}

    for away, old, new in (
        (place.stack.mlflow, one, two),
        (place.stack.s3, two, one),
        (place.stack.database, one, two),
    ):
        with away.stopped():
            assert Traffic(running.url).apply() == {(200, old)}
            assert running.stop() == 0
            running = start(portfolio=toys.NAME, **mine)
            assert Traffic(running.url).apply() == {(200, old)}
        place.run("registry", "move", new)
        until(partial(decided_by, running, new))

    # Without a copy a server does not start: it decides by no other package.
    fresh = {
        "CREDIT_RISK_STATE_DIR": str(place.folder / "fresh"),
        "CREDIT_RISK_DATABASE_URL": f"sqlite:///{place.folder / 'mine' / 'records.db'}",
    }
    with place.stack.s3.stopped():
        said = place.run("serve", code=1, **fresh)
        assert f"package {two} is not installed here, and the registry at" in said
        assert Traffic(running.url).apply() == {(200, two)}
    until(partial(fetched, place, two))
    given = {name.removeprefix(PREFIX).lower(): value for name, value in fresh.items()}
    another = start(portfolio=toys.NAME, **{**place.server, **given})
    assert Traffic(another.url).apply() == {(200, two)}


def fetched(place: Place, version: str) -> bool:
    """Whether a package can be fetched: S3 listens again before it finds its files again."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Registry(place.stack.url)) as it,
    ):
        try:
            it.download(it.find(toys.NAME, version), Path(folder))
        except RegistryUnavailable:
            return False
    return True


def decided_by(running: RunningServer, version: str) -> bool:
    """Whether all workers decide by that package: one connection is one worker's."""
    answers = set().union(*(Traffic(running.url).apply(1) for _ in range(CONNECTIONS)))
    assert {status for status, _ in answers} == {200}
    return answers == {(200, version)}


def test_a_models_whole_life(
    place: Place, trained: list[dict[str, Any]], start: Callable[..., RunningServer]
) -> None:
    """Trained, registered, serving; a better one beside it, approved by two, promoted, undone.

    Servers know of packages by the registry alone; records and registry are in PostgreSQL.
    """
    with place.stack.database.database() as name:
        place.settings["CREDIT_RISK_DATABASE_URL"] = place.stack.database.url(name)
        place.run("database", "upgrade")
        half = trained[0]["version"]
        place.run("registry", "move", half)

        running = start(
            portfolio=toys.NAME, **place.server, state_dir=str(place.folder / "decides")
        )
        traffic = Traffic(running.url)
        with traffic.going_on():
            whole = _retrained(place)
            _shadowed(place, whole)
            _approved(place, whole)
            promoted = place.read("promote", whole)
            until(lambda: traffic.answers[-1][1] == whole)
            then = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            place.run("rollback")
            until(lambda: traffic.answers[-1][1] == half)

        assert promoted["outcome"] == "PROMOTED"
        assert {status for status, _ in traffic.answers} == {200}
        changes = [new for old, new in pairwise(v for _, v in traffic.answers) if new != old]
        assert changes[0] == whole
        assert changes[-1] == half
        shown = place.read("registry", "status")
        assert [row["package"] for row in shown["versions"] if row["aliases"] == ["champion"]] == [
            half
        ]
        assert [row["package"] for row in shown["versions"] if row["status"] == "passed"] == [whole]
        decided = place.read("history", "--at", then)["decided"]
        assert decided["model_version"] == whole
        assert [given["approver"] for given in decided["approvals"]] == ["ada", "ben"]
        assert decided["promotion"]["judgement"]["verdict"] == "PASSED"
        assert running.stop() == 0


def _retrained(place: Place) -> str:
    """A candidate of all the data; it is registered as challenger."""
    data = leases.write_labelled(place.folder / "all.csv", 1_200)
    made = place.read("retrain", "--data", str(data), "--estimator", "xgboost")
    version: str = made["candidate"]
    shown = place.read("registry", "status")
    (row,) = [row for row in shown["versions"] if row["package"] == version]
    assert row["aliases"] == ["challenger"]
    return version


def _shadowed(place: Place, version: str) -> None:
    """It is asked about as many applicants as the gate wants to see."""
    until(lambda: place.read("challenger", version)["rows"] >= SHADOWED)

    report = place.read("challenger", version)
    assert report["challenger"] == version
    assert report["agreement"]["value"] > 0.5


def _approved(place: Place, version: str) -> None:
    """By two; one of them cannot approve twice."""
    ada, ben = str(place.key("ada")), str(place.key("ben"))
    place.run("approve", version, "--key", ada)
    again = place.run("approve", version, "--key", ada, code=1)
    assert "ada" in again
    lacking = json.loads(place.run("promote", version, "--json", code=None))
    assert (lacking["outcome"], lacking["lacking"]) == ("UNAPPROVED", 1)
    place.run("approve", version, "--key", ben)
