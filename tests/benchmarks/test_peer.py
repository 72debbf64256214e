"""The servers' descriptions, and their environments."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from benchmarks import peer
from benchmarks.peer import NotInstalled, all_peers
from benchmarks.verdict import EMPTY, OURS, USUAL, WITHOUT_REASONS, WITHOUT_RECORDS
from tests.benchmarks.figures import write_peer

ROOT = Path(__file__).parents[2]
MODEL_LIBRARIES = ("joblib", "numpy", "pandas", "scikit-learn", "scipy", "xgboost-cpu")
OTHER = "title: Other {version}\npackage: other\ncommand: [other]\npath: /\nloads: {predict: [1]}\n"


def pins(path: Path) -> dict[str, str]:
    """Package and version of each line that pins one."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_this_server_comes_first_and_those_compared_are_there() -> None:
    """The verdict names five of them."""
    names = [one.name for one in all_peers()]

    assert names[0] == OURS
    assert {OURS, EMPTY, USUAL, WITHOUT_REASONS, WITHOUT_RECORDS} < set(names)


@pytest.mark.parametrize("one", all_peers(), ids=lambda one: one.name)
def test_every_server_says_how_it_is_started_and_asked(one: peer.Peer) -> None:
    """A title without blanks, a path for each load, and only words that are known."""
    known = {"here", "root", "scratch", "pipeline", "packages", "packages_approving"}
    known |= {"collector", "port", "port2", "port3"}
    description = one.description
    words = (*description.prepare, *description.command, *description.environment.values())

    assert "{" not in one.title
    assert ("batch" in description.loads) == (description.batch_path is not None)
    assert {name for word in words for name in re.findall(r"{(\w+)}", word)} <= known
    assert any("{port}" in word for word in words)


@pytest.mark.parametrize(
    "one", [one for one in all_peers() if one.description.package], ids=lambda one: one.name
)
def test_every_server_runs_the_model_on_the_libraries_of_this_project(one: peer.Peer) -> None:
    """What differs is what is around the model."""
    ours, theirs = pins(ROOT / "requirements" / "dev.txt"), pins(one.folder / "requirements.txt")
    used = {name for name in MODEL_LIBRARIES if name in theirs}

    assert one.description.scores == (set(MODEL_LIBRARIES) == used)
    assert {name: theirs[name] for name in used} == {name: ours[name] for name in used}


def test_the_title_has_the_version_that_is_installed(tmp_path: Path) -> None:
    """And a package that the requirements do not name has none."""
    one = write_peer(tmp_path, "other", OTHER)
    (one.folder / "requirements.txt").write_text("another==2\nother==1.5 ; linux \\\n", "utf-8")

    assert one.title == "Other 1.5"
    with pytest.raises(NotInstalled, match=r"other: requirements\.txt does not name third"):
        one.version("third")


def test_an_environment_is_made_again_only_for_other_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same requirements stays; another is removed before the new one is tried."""
    monkeypatch.setattr(peer, "ENVIRONMENTS", tmp_path / "environments")
    one = write_peer(tmp_path, "other", OTHER)
    requirements = one.folder / "requirements.txt"
    requirements.write_text("other==1.5\n", encoding="utf-8")
    environment = tmp_path / "environments" / "other"
    environment.mkdir(parents=True)
    stamp = environment / "requirements.sha256"
    stamp.write_text(hashlib.sha256(requirements.read_bytes()).hexdigest(), encoding="ascii")

    one.install()
    assert list(environment.iterdir()) == [stamp]

    requirements.write_text("other==1.6\n", encoding="utf-8")
    # Without a hash it is refused before anything is fetched.
    with pytest.raises(NotInstalled, match=r"other: .*hash"):
        one.install()
    assert not stamp.exists()
    assert one.bin == environment / "bin"
