"""The store: what is put in is whole, found again, and verified whenever it is loaded."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
import pytest
from bentoml._internal.models import ModelStore

from credit_risk import approvals
from credit_risk.approvals import Signatures
from credit_risk.errors import PackageInvalid, PackageNotFound
from credit_risk.manifest import verify
from credit_risk.serving.store import DEFAULT, FOLDER, Store
from credit_risk.settings import Settings
from tests import toys
from tests.signing import ADA, BEN, approval

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

# Waits until told, so that all start at once; adds the shipped packages and prints what it found.
ADDING = """
import sys
from pathlib import Path
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
settings = Settings(
    portfolio="bicycle-leases", state_dir=Path(sys.argv[1]), packages_dir=Path(sys.argv[2])
)
print("ready", flush=True)
sys.stdin.readline()
store = Store(settings)
store.add_shipped("bicycle-leases")
for installed in store.installed("bicycle-leases"):
    store.load("bicycle-leases", installed.version)
    print(installed.version)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state directory and a folder of shipped packages, neither made yet."""
    return Settings(
        portfolio=toys.NAME, state_dir=tmp_path / "state", packages_dir=tmp_path / "shipped"
    )


@pytest.fixture
def store(settings: Settings) -> Store:
    """An empty store."""
    return Store(settings)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A toy package somewhere else."""
    return toys.write_package(tmp_path / "elsewhere", "linear")


def test_a_package_put_in_is_loaded_again(store: Store, source: Path) -> None:
    """Under its version, from the store's own copy."""
    version = store.add(source)
    shutil.rmtree(source)

    loaded = store.load(toys.NAME, version)

    assert loaded.version == version == source.name
    assert loaded.path == store.path(toys.NAME, version)
    assert (loaded.portfolio, loaded.spec.kind) == (toys.NAME, "linear")


def test_it_is_a_model_of_bentomls_store(store: Store, source: Path, settings: Settings) -> None:
    """BentoML's own tools list it and find its files."""
    version = store.add(source)

    models = ModelStore(str(settings.state_dir / "bentoml" / "models"))
    model = bentoml.models.get(f"{toys.NAME}:{version}", _model_store=models)
    assert [m.tag for m in models.list()] == [model.tag]
    assert model.info.labels == {"portfolio": toys.NAME}
    assert verify(Path(model.path_of(FOLDER))).version == version
    assert models.get(f"{toys.NAME}:latest").tag.version == version


def test_what_is_installed_is_listed_the_newest_last(store: Store, tmp_path: Path) -> None:
    """With its estimator and when it was put in."""
    versions = [
        store.add(toys.write_package(tmp_path / "a", "trees")),
        store.add(toys.write_package(tmp_path / "a", "linear")),
    ]

    found = store.installed(toys.NAME)

    assert {p.version for p in found} == set(versions)
    assert [p.created for p in found] == sorted(str(p.created) for p in found)
    assert all(datetime.fromisoformat(str(p.created)).tzinfo for p in found)
    assert {(p.estimator, p.broken) for p in found} == {("written by hand", None)}
    assert store.installed("another-portfolio") == []


def test_putting_a_package_in_twice_changes_nothing(store: Store, source: Path) -> None:
    """The same content is the same version."""
    store.add(source)
    before = store.installed(toys.NAME)

    assert store.add(source) == source.name
    assert store.installed(toys.NAME) == before


def test_an_altered_package_is_not_put_in(store: Store, source: Path) -> None:
    """It is refused by the name of the file, and nothing of it stays."""
    (source / "policy.yaml").write_text("portfolio: bicycle-leases\n", encoding="utf-8")

    with pytest.raises(PackageInvalid, match=r"policy\.yaml was altered"):
        store.add(source)
    assert store.installed(toys.NAME) == []


def test_a_copy_that_breaks_off_leaves_nothing(
    store: Store, source: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a kill within it: the next try starts anew and succeeds."""

    def break_off(_: Path, target: str) -> None:
        Path(target).mkdir()
        (Path(target) / "schema.yaml").write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copytree", break_off)
        with pytest.raises(OSError, match="No space left"):
            store.add(source)

    assert store.installed(toys.NAME) == []
    home = settings.state_dir / "bentoml"
    assert {p.name for p in home.iterdir()} == {"models", "adding.lock"}
    assert store.load(toys.NAME, store.add(source)).version == source.name


def test_a_package_is_verified_without_being_loaded(store: Store, source: Path) -> None:
    """What it and its policy are called is told; a copy by another name is none."""
    version = store.add(source)
    loaded = store.load(toys.NAME, version)

    assert store.verified(toys.NAME, version) == (version, loaded.digest, loaded.policy_version)
    folder = store.path(toys.NAME, version).parent
    shutil.copytree(folder, folder.with_name("111111111111"))
    with pytest.raises(PackageInvalid, match=f"it is package {version} of portfolio"):
        store.verified(toys.NAME, "111111111111")
    shutil.copytree(folder, folder.parents[1] / "others" / version)
    with pytest.raises(PackageInvalid, match=f"it is package {version} of portfolio {toys.NAME}"):
        store.verified("others", version)
    alter(store.path(toys.NAME, version))
    with pytest.raises(PackageInvalid, match=r"model\.json was altered"):
        store.verified(toys.NAME, version)


def test_signatures_go_where_their_package_goes(store: Store, source: Path) -> None:
    """Those beside it when it is put in, those that come later, and those of a second copy."""
    ada, ben = approval(ADA, "ada", "ab" * 32), approval(BEN, "ben", "ab" * 32)
    with pytest.raises(PackageNotFound, match=f"no package {source.name}"):
        store.sign(toys.NAME, source.name, ada)
    approvals.add(source, [ada])
    version = store.add(source)
    assert store.signatures(toys.NAME, version) == Signatures((ada,))

    store.sign(toys.NAME, version, ben)
    approvals.add(source, [approval(ADA, "ada", "cd" * 32)])
    store.add(source)

    assert len(store.signatures(toys.NAME, version).found) == 3
    assert store.load(toys.NAME, version).version == version
    assert [p.version for p in store.installed(toys.NAME)] == [version]


def test_signatures_beside_a_shipped_package_count_whenever_they_come(
    store: Store, settings: Settings
) -> None:
    """Also once the package is in the store: an upgrade may bring them."""
    shipped = toys.write_package(settings.packages_dir, "linear")
    store.add_shipped(toys.NAME)
    ada = approval(ADA, "ada", "ab" * 32)
    approvals.add(shipped, [ada])

    assert store.signatures(toys.NAME, shipped.name) == Signatures((ada,))


def test_a_file_of_signatures_that_cannot_be_read_breaks_its_package(
    store: Store, source: Path
) -> None:
    """It is listed so, and told by its place; one that can, whatever is in it, does not."""
    version = store.add(source)
    file = approvals.beside(store.path(toys.NAME, version))
    file.write_text("half", encoding="utf-8")
    assert [p.broken for p in store.installed(toys.NAME)] == [None]
    assert store.signatures(toys.NAME, version) == Signatures(junk=1)

    file.unlink()
    file.mkdir()

    (installed,) = store.installed(toys.NAME)
    assert str(file) in str(installed.broken)
    approvals.beside(source).mkdir()
    with pytest.raises(PackageInvalid, match="cannot be read"):
        store.add(source)


def alter(folder: Path) -> None:
    """One byte of one file."""
    content = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(content.replace(b"2.4", b"2.3"))


def cut(folder: Path) -> None:
    """A file to half of it."""
    content = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(content[: len(content) // 2])


def remove(folder: Path) -> None:
    """A file altogether."""
    (folder / "model.json").unlink()


@pytest.mark.parametrize("damage", [alter, cut, remove])
def test_a_package_altered_on_disk_is_refused_by_the_name_of_the_file(
    store: Store, source: Path, damage: Callable[[Path], None]
) -> None:
    """It is still listed, so that somebody sees which one it is."""
    version = store.add(source)
    damage(store.path(toys.NAME, version))

    with pytest.raises(PackageInvalid, match=rf"package {version}: model\.json (was|is)"):
        store.load(toys.NAME, version)
    (installed,) = store.installed(toys.NAME)
    assert installed.version == version


def test_a_file_that_was_added_to_a_package_is_refused_too(store: Store, source: Path) -> None:
    """Nothing rides along."""
    version = store.add(source)
    (store.path(toys.NAME, version) / "extra.pkl").write_bytes(b"cos\nsystem\n")

    with pytest.raises(PackageInvalid, match=r"extra\.pkl is not in the manifest"):
        store.load(toys.NAME, version)


def test_a_folder_that_holds_another_version_is_refused(store: Store, tmp_path: Path) -> None:
    """A version is its content; a renamed folder is another package."""
    one = store.add(toys.write_package(tmp_path / "a", "linear"))
    other = store.add(toys.write_package(tmp_path / "a", "trees"))
    folder = store.path(toys.NAME, one)
    shutil.rmtree(folder)
    shutil.copytree(store.path(toys.NAME, other), folder)

    with pytest.raises(PackageInvalid, match=f"the folder holds {other}"):
        store.load(toys.NAME, one)


def test_a_package_of_another_portfolio_is_refused(store: Store, source: Path) -> None:
    """A folder in the wrong place does not decide about the wrong product."""
    version = store.add(source)
    models = store.path(toys.NAME, version).parents[2]
    shutil.copytree(models / toys.NAME, models / "credit-cards")

    with pytest.raises(PackageInvalid, match=f"belongs to portfolio {toys.NAME}"):
        store.load("credit-cards", version)


@pytest.mark.parametrize(
    "version", ["0123456789ab", "", "latest", "*", "..", "../..", "a/b", "A B", "\0", "x" * 300]
)
def test_a_version_that_is_not_installed_is_not_found(
    store: Store, source: Path, version: str
) -> None:
    """Whatever the name given; none leads out of the store."""
    store.add(source)

    message = f"no package {version} of portfolio {toys.NAME} is installed"
    with pytest.raises(PackageNotFound, match=re.escape(message)):
        store.load(toys.NAME, version)


def test_the_start_of_a_version_is_not_the_version(store: Store, source: Path) -> None:
    """BentoML finds a model by the start of its name; what decides is named in full."""
    version = store.add(source)

    with pytest.raises(PackageNotFound, match=version[:6]):
        store.load(toys.NAME, version[:6])


def test_shipped_packages_are_put_in_once(settings: Settings, store: Store) -> None:
    """All of the portfolio's, none of another's."""
    versions = {
        toys.write_package(settings.packages_dir, kind).name for kind in ("trees", "linear")
    }
    shutil.copytree(settings.packages_dir / toys.NAME, settings.packages_dir / "another")

    store.add_shipped(toys.NAME)
    before = store.installed(toys.NAME)
    store.add_shipped(toys.NAME)

    assert {p.version for p in before} == versions
    assert all(p.created for p in before)
    assert store.installed(toys.NAME) == before
    assert [p.created for p in store.installed("another")] == [None, None]


def test_a_shipped_package_is_found_where_it_is(settings: Settings, store: Store) -> None:
    """Who only reads needs no store, and makes none."""
    shipped = toys.write_package(settings.packages_dir, "linear")

    (found,) = store.installed(toys.NAME)
    loaded = store.load(toys.NAME, shipped.name)

    assert (found.version, found.path, found.created) == (shipped.name, shipped, None)
    assert loaded.path == shipped
    assert not settings.state_dir.exists()


def test_a_shipped_package_that_was_altered_is_left_out_by_name(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are put in, the log names its folder and file, and it is refused when wanted."""
    shipped = toys.write_package(settings.packages_dir, "linear")
    (shipped / "reasons.yaml").write_text("none", encoding="utf-8")
    other = toys.write_package(settings.packages_dir, "trees")

    store.add_shipped(toys.NAME)

    assert store.load(toys.NAME, other.name).version == other.name
    (line,) = caplog.messages
    found = {p.version: p.broken for p in store.installed(toys.NAME)}
    assert found[other.name] is None
    with pytest.raises(PackageInvalid) as caught:
        store.load(toys.NAME, shipped.name)
    for said in (line, found[shipped.name], str(caught.value)):
        assert f"{shipped}: package {shipped.name}: reasons.yaml was altered" in str(said)


def test_a_damaged_package_in_the_store_does_not_keep_the_others_out(
    settings: Settings, store: Store
) -> None:
    """What decides may be another one."""
    damaged = toys.write_package(settings.packages_dir, "linear").name
    store.add_shipped(toys.NAME)
    (store.path(toys.NAME, damaged) / "model.json").write_text("{", encoding="utf-8")
    new = toys.write_package(settings.packages_dir, "trees").name

    store.add_shipped(toys.NAME)

    assert store.load(toys.NAME, new).version == new
    estimators = {p.version: p.estimator for p in store.installed(toys.NAME)}
    assert estimators == {damaged: None, new: "written by hand"}


@pytest.mark.parametrize("content", [None, "", "name: [", "name: x", "creation_time: soon", "\0"])
def test_a_model_without_bentomls_description_is_broken_and_stops_no_other(
    settings: Settings, store: Store, content: str | None
) -> None:
    """Half a model, as a copy that was killed leaves it: listed and refused by its place."""
    versions = [toys.write_package(settings.packages_dir, k).name for k in ("trees", "linear")]
    store.add_shipped(toys.NAME)
    file = store.path(toys.NAME, versions[0]).parent / "model.yaml"
    file.unlink()
    if content is not None:
        file.write_text(content, encoding="utf-8")

    store.add_shipped(toys.NAME)

    broken, whole = store.installed(toys.NAME)
    assert (broken.version, whole.version, whole.broken) == (*versions, None)
    assert str(file) in str(broken.broken)
    assert store.load(toys.NAME, whole.version).version == whole.version
    with pytest.raises(PackageInvalid, match=re.escape(f"once {file.parent} is deleted")):
        store.load(toys.NAME, broken.version)
    shutil.rmtree(file.parent)
    store.add_shipped(toys.NAME)
    assert [p.broken for p in store.installed(toys.NAME)] == [None, None]


def test_whatever_lies_in_the_store_is_listed_or_left_alone(store: Store, source: Path) -> None:
    """A folder that is empty or misnamed is broken; a file, or one being written, is nothing."""
    version = store.add(source)
    folder = store.path(toys.NAME, version).parents[1]
    (folder / "000000000000").mkdir()
    (folder / ".writing-x").mkdir()
    (folder / "notes.txt").touch()
    shutil.copytree(folder / version, folder / "111111111111")

    found = {p.version: p.broken for p in store.installed(toys.NAME)}

    assert set(found) == {version, "000000000000", "111111111111"}
    assert found[version] is None
    assert "000000000000/model.yaml" in str(found["000000000000"])
    assert f"111111111111/package: the folder holds {version}" in str(found["111111111111"])


def test_a_package_of_a_newer_format_is_listed_as_one_that_is_not_understood(
    store: Store, tmp_path: Path
) -> None:
    """Its sums match, but what is in it is not known here."""
    version = store.add(toys.write_package(tmp_path, "linear", model_json=b'{"kind": "quantum"}'))

    (found,) = store.installed(toys.NAME)

    assert (found.version, found.estimator) == (version, None)
    assert str(found.broken).endswith(f"{version}/package: model.json cannot be read")


def test_the_words_of_a_package_are_read_without_its_model(store: Store, source: Path) -> None:
    """Of an installed one; altered, it is refused by its folder."""
    version = store.add(source)

    assert store.wordings(toys.NAME, version).reasons == toys.reasons()
    with pytest.raises(PackageNotFound):
        store.wordings(toys.NAME, "0123456789ab")
    (store.path(toys.NAME, version) / "card.md").write_text("another", encoding="utf-8")
    with pytest.raises(PackageInvalid, match=rf"{version}/package: .* was altered"):
        store.wordings(toys.NAME, version)


def test_the_default_is_named_beside_the_shipped_packages(settings: Settings, store: Store) -> None:
    """One line in a file; a portfolio without one ships nothing to serve."""
    with pytest.raises(PackageNotFound, match=f"portfolio {toys.NAME} ships no package"):
        store.shipped_default(toys.NAME)

    folder = settings.packages_dir / toys.NAME
    folder.mkdir(parents=True)
    (folder / DEFAULT).write_text("0123456789ab\n", encoding="utf-8")
    assert store.shipped_default(toys.NAME) == "0123456789ab"


def test_two_state_directories_never_meet(settings: Settings, source: Path) -> None:
    """What is put into one is not in the other."""
    elsewhere = settings.model_copy(update={"state_dir": settings.state_dir / "other"})

    version = Store(settings).add(source)

    assert Store(elsewhere).installed(toys.NAME) == []
    with pytest.raises(PackageNotFound):
        Store(elsewhere).load(toys.NAME, version)


def test_who_puts_a_package_in_waits_for_who_does_already(
    store: Store, source: Path, settings: Settings
) -> None:
    """One at a time, over all processes of a state directory."""
    adding = threading.Thread(target=store.add, args=(source,))
    (settings.state_dir / "bentoml").mkdir(parents=True)
    with (settings.state_dir / "bentoml" / "adding.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        adding.start()
        adding.join(timeout=0.3)
        assert store.installed(toys.NAME) == []
    adding.join()

    assert [p.version for p in store.installed(toys.NAME)] == [source.name]


def test_processes_that_start_at_the_same_time_each_find_whole_packages(
    settings: Settings,
) -> None:
    """Two workers on an empty state directory: one copies, both load."""
    versions = {
        toys.write_package(settings.packages_dir, kind).name for kind in ("trees", "linear")
    }
    processes = [
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", ADDING, str(settings.state_dir), str(settings.packages_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outcomes = [process.communicate("go\n") for process in processes]

    assert [errors for _, errors in outcomes] == ["", ""]
    for printed, _ in outcomes:
        assert set(printed.split()) == versions
    assert {p.version for p in Store(settings).installed(toys.NAME)} == versions
