"""The registry's client, on an MLflow in this process, and on a real one where it is installed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from credit_risk import package
from credit_risk.errors import PackageInvalid, PackageNotFound, RegistryUnavailable
from credit_risk.manifest import (
    DIGEST_TAG,
    MANIFEST,
    STATUS_TAG,
    VERSION_TAG,
    Manifest,
    read_manifest,
)
from credit_risk.serving import registry
from credit_risk.serving.registry import CHAMPION, Registered, Registry
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from tests import registries, served, toys
from tests.registries import Mlflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Place:
    """A registry and its client, a server's folder and store, and two packages on disk."""

    mlflow: Mlflow
    asked: Registry
    folder: Path
    linear: Path
    trees: Path

    def __post_init__(self) -> None:
        self.settings = served.settings(self.folder / "state")
        self.store = Store(self.settings)

    def only(self) -> Registered:
        """The one version that is registered."""
        (found,) = self.asked.versions(toys.NAME)
        return found

    def fetch(self) -> None:
        """Put that one into the store."""
        registry.fetch(self.asked, self.only(), self.store, self.settings.state_dir)

    def left(self) -> list[str]:
        """What there is in the state directory."""
        return sorted(path.name for path in self.settings.state_dir.iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two toy packages."""
    folder = tmp_path_factory.mktemp("made")
    return toys.write_package(folder, "linear"), toys.write_package(folder, "trees")


@pytest.fixture
def place(made: tuple[Path, Path], tmp_path: Path) -> Iterator[Place]:
    """Nothing is registered yet."""
    mlflow = Mlflow()
    with contextlib.closing(mlflow.client()) as asked:
        yield Place(mlflow, asked, tmp_path, *made)


# What is asked


def test_an_alias_stands_for_a_version(place: Place) -> None:
    """For the one that it was moved to last; its tags say which package that is."""
    linear, trees = (place.mlflow.add(folder) for folder in (place.linear, place.trees))
    place.asked.move(toys.NAME, CHAMPION, linear)
    place.asked.move(toys.NAME, CHAMPION, trees)

    named = place.asked.aliased(toys.NAME, CHAMPION)

    assert named is not None
    manifest = read_manifest(place.trees)
    assert named.number == trees
    assert (named.package_version, named.package_sha256) == (manifest.version, manifest.digest)


def test_an_alias_that_nobody_has_stands_for_nothing(place: Place) -> None:
    """MLflow calls one of them missing and the other a wrong parameter."""
    assert place.asked.aliased(toys.NAME, CHAMPION) is None
    place.mlflow.add(place.linear)
    assert place.asked.aliased(toys.NAME, CHAMPION) is None


def test_a_package_is_found_by_its_version(place: Place) -> None:
    """The newest of those that are it; all of them are found page by page."""
    numbers = [place.mlflow.add(folder) for folder in (place.linear, place.trees, place.linear)]
    version = read_manifest(place.linear).version

    assert place.asked.find(toys.NAME, version).number == numbers[2]
    assert [found.number for found in place.asked.versions(toys.NAME)] == numbers[::-1]
    assert [found.number for found in place.asked.versions(toys.NAME, version)] == ["3", "1"]
    with pytest.raises(PackageNotFound, match=r"no package 0{12} .* in the registry at http://ml"):
        place.asked.find(toys.NAME, "0" * 12)


def test_a_tag_is_set(place: Place) -> None:
    """As what people know of a version is kept."""
    place.mlflow.add(place.linear)

    place.asked.tag(place.only(), STATUS_TAG, "approved")

    assert place.only().tags[STATUS_TAG] == "approved"


def test_a_version_that_somebody_else_registered_is_none_of_ours(place: Place) -> None:
    """Nothing is guessed from where its files lie."""
    place.mlflow.add(place.linear)
    place.mlflow.models[toys.NAME][0].tags.clear()

    with pytest.raises(PackageInvalid, match=r"version 1 of bicycle-leases .* no tag pack"):
        _ = place.only().package_version


def test_who_asks_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with its password, or else a token, as MLflow's own clients read them."""
    place.mlflow.client(token="t0ken").aliased("a", "b")  # noqa: S106 - made up
    place.mlflow.client(auth=("ada", "secret")).aliased("a", "b")

    assert [request.headers["authorization"] for request in place.mlflow.asked] == [
        "Bearer t0ken",
        "Basic YWRhOnNlY3JldA==",
    ]
    assert registry.connect(place.settings) is None
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    settings = Settings(registry_uri="https://mlflow.example/prefix")
    client = registry.connect(settings)
    assert str(client) == "the registry at https://mlflow.example"


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (registries.away, "does not answer: ConnectError"),
        (registries.failing, "answers 500, and nothing that is of use"),
        (lambda _: httpx.Response(200, content=b"<html>"), "answers 200, and nothing"),
        (lambda _: httpx.Response(200, json=[]), "answers 200, and nothing"),
        (lambda _: httpx.Response(200, json={"model_version": {}}), "proper model_version.name"),
        (lambda _: httpx.Response(302, headers={"location": "/login"}), "answers 302, and noth"),
        (lambda _: httpx.Response(200, content=b" " * (5 << 20)), "more than can be right"),
        (lambda _: httpx.Response(200, content=b"[" * 100_000), "answers 200, and nothing"),
        (lambda _: httpx.Response(400, json={"error_code": []}), "answers 400, and nothing"),
        (
            lambda _: httpx.Response(200, json={"model_version": {"name": "..", "version": "1"}}),
            "about another model",
        ),
    ],
)
def test_what_is_no_answer_is_an_error(
    place: Place,
    fault: Callable[[httpx.Request], httpx.Response],
    told: str,
) -> None:
    """It says where, and no secret: not even one that somebody put into a URL."""
    place.mlflow.fault = fault

    with pytest.raises(RegistryUnavailable, match=told) as caught:
        place.asked.aliased(toys.NAME, CHAMPION)
    assert "secret" not in str(caught.value)


def test_an_answer_without_end_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page with nothing on it."""
    monkeypatch.setattr(registry, "PAGES_MAX", 3)
    place.mlflow.fault = lambda _: httpx.Response(200, json={"next_page_token": "more"})

    with pytest.raises(RegistryUnavailable, match="answers without end"):
        place.asked.find(toys.NAME, "0" * 12)
    assert len(place.mlflow.asked) == 3


@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_an_answer_that_trickles_is_cut_off(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little each of its parts takes, and also within its head."""
    monkeypatch.setattr(registry, "ANSWER_SECONDS", 0.2)
    over = threading.Event()

    def trickle() -> None:
        with listening.accept()[0] as connection, contextlib.suppress(OSError):
            connection.sendall(begun)
            while not over.wait(0.02):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with (
                contextlib.closing(Registry(url)) as asked,
                pytest.raises(RegistryUnavailable, match="takes too long to answer"),
            ):
                asked.aliased(toys.NAME, CHAMPION)
        finally:
            over.set()
            thread.join()


# Fetching


def test_a_package_is_fetched_into_the_store(place: Place) -> None:
    """Byte for byte; and only once, though others ask for it as well."""
    place.mlflow.add(place.trees)

    place.fetch()

    version = read_manifest(place.trees).version
    assert place.store.load(toys.NAME, version).version == version
    place.mlflow.files.clear()
    place.fetch()
    assert place.left() == ["bentoml", "fetching.lock"]


def test_a_version_activated_elsewhere_is_fetched(place: Place) -> None:
    """By its version; where that cannot be now, the error says what is missing here."""
    version = read_manifest(place.linear).version
    with pytest.raises(PackageNotFound, match=f"no package {version}"):
        registry.fetch_version(place.asked, place.store, place.settings, version)
    place.mlflow.add(place.linear)
    place.mlflow.fault = registries.away
    with pytest.raises(
        RegistryUnavailable, match=f"package {version} is not installed here, and the registry"
    ):
        registry.fetch_version(place.asked, place.store, place.settings, version)
    place.mlflow.fault = None

    registry.fetch_version(place.asked, place.store, place.settings, version)

    assert place.store.path(toys.NAME, version).is_dir()


def lose(mlflow: Mlflow, root: str) -> None:
    """A file that is gone."""
    del mlflow.files[f"{root}/card.md"]


def alter(mlflow: Mlflow, root: str) -> None:
    """A file that is another."""
    mlflow.files[f"{root}/card.md"] += b" "


def swap(mlflow: Mlflow, root: str) -> None:
    """A manifest that fits its files, but not what was registered."""
    rewrite(mlflow, root, lambda manifest: manifest["files"].pop("card.md"))


def escape(mlflow: Mlflow, root: str) -> None:
    """A manifest, registered as it is, with a file that would lie beside the package."""
    rewrite(mlflow, root, lambda manifest: manifest["files"].update({"../outside": "0" * 64}))
    retag(mlflow, root)


def name(told: str) -> Callable[[Mlflow, str], None]:
    """A manifest, registered as it is, with files of such names."""

    def change(mlflow: Mlflow, root: str) -> None:
        names = dict.fromkeys(told.split(" "), "0" * 64)
        rewrite(mlflow, root, lambda manifest: manifest.update(files=names))
        mlflow.files |= {f"{root}/{path}": b"" for path in names}
        retag(mlflow, root)

    return change


def tag(key: str, value: str) -> Callable[[Mlflow, str], None]:
    """A tag that says something else."""
    return lambda mlflow, _: mlflow.models[toys.NAME][0].tags.update({key: value})


def mislabel(mlflow: Mlflow, root: str) -> None:
    """A manifest, registered as it is, of another portfolio."""
    rewrite(mlflow, root, lambda manifest: manifest.update(portfolio="another"))
    retag(mlflow, root)


def move(mlflow: Mlflow, root: str) -> None:
    """Artefacts that MLflow's server does not serve."""
    mlflow.models[toys.NAME][0].source = f"s3://bucket/{root}"


def garble(mlflow: Mlflow, _: str) -> None:
    """Artefacts that lie nowhere."""
    mlflow.models[toys.NAME][0].source = "mlflow-artifacts://[nowhere/"


def rewrite(mlflow: Mlflow, root: str, change: Callable[[Any], object]) -> None:
    """Change the manifest."""
    document = json.loads(mlflow.files[f"{root}/{MANIFEST}"])
    change(document)
    mlflow.files[f"{root}/{MANIFEST}"] = json.dumps(document).encode()


def retag(mlflow: Mlflow, root: str) -> None:
    """Have the tags say what the manifest is."""
    content = mlflow.files[f"{root}/{MANIFEST}"]
    manifest: Manifest = Manifest.model_validate_json(content)
    mlflow.models[toys.NAME][0].tags |= manifest.tags


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lose, RegistryUnavailable, "answers 500, asked for a file"),
        (alter, PackageInvalid, r"card\.md was altered"),
        (
            swap,
            PackageInvalid,
            r"version 1 of .* manifest\.json is not the one that was registered",
        ),
        (escape, PackageInvalid, "a file of it would lie outside its folder"),
        (name("a\0b"), PackageInvalid, "a file of it would lie outside its folder"),
        (name("a a/b"), RegistryUnavailable, "version 1 of .* cannot be kept here: "),
        (name("a" * 300), RegistryUnavailable, "cannot be kept here: File name too long"),
        (tag(VERSION_TAG, "../../elsewhere"), PackageInvalid, "tag package_version is none of"),
        (tag(DIGEST_TAG, "0" * 12), PackageInvalid, "tag package_sha256 is none of ours"),
        (garble, PackageInvalid, "where its files lie is no URI"),
        (mislabel, PackageInvalid, r"its tags are not those of its manifest\.json"),
        (move, PackageInvalid, r"not served by it \(s3:\): start MLflow with --artifacts-dest"),
    ],
)
def test_what_is_not_what_was_registered_is_not_taken(
    place: Place,
    change: Callable[[Mlflow, str], None],
    error: type[Exception],
    told: str,
) -> None:
    """And nothing of it stays here."""
    place.mlflow.add(place.linear)
    change(
        place.mlflow, place.mlflow.models[toys.NAME][0].source.removeprefix("mlflow-artifacts:/")
    )

    with pytest.raises(error, match=told):
        place.fetch()
    assert place.store.installed(toys.NAME) == []
    assert place.left() == ["fetching.lock"]
    assert sorted(path.name for path in place.folder.iterdir()) == ["state"]


def test_more_than_a_package_may_have_is_not_taken(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk stays as full as it is."""
    place.mlflow.add(place.linear)
    monkeypatch.setattr(registry, "PACKAGE_BYTES_MAX", 100)

    with pytest.raises(RegistryUnavailable, match="more than can be right"):
        place.asked.download(place.only(), place.folder)


def test_artefacts_may_be_named_by_the_servers_own_url(place: Place) -> None:
    """As older servers name them."""
    place.mlflow.add(place.linear)
    version = place.mlflow.models[toys.NAME][0]
    root = version.source.removeprefix("mlflow-artifacts:/")
    version.source = f"https://mlflow.test/api/2.0/mlflow-artifacts/artifacts/{root}"

    assert package.load(place.asked.download(place.only(), place.folder)).portfolio == toys.NAME


# Moving the alias


def test_an_alias_is_moved_to_a_package(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns the number; where there is no registry, there is none to move it in."""
    settings = place.settings
    assert registry.move_alias(settings, "0" * 12) is None
    monkeypatch.setattr(registry, "connect", lambda _: place.mlflow.client())
    place.mlflow.add(place.linear)
    place.mlflow.add(place.trees)

    moved = registry.move_alias(settings, read_manifest(place.linear).version)

    assert moved == place.mlflow.aliases[toys.NAME, CHAMPION] == "1"
    with pytest.raises(PackageNotFound):
        registry.move_alias(settings, "0" * 12)
