"""The workflows: valid, pinned, with no more rights than they need, and thin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
COMMANDS = {
    *("make lint types", "make test-registry", "make test-long", "make image", "make retrain"),
    "sudo --preserve-env=PATH .ci/run",
}


def read(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads its key ``on`` as true."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in workflow.items()}


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    """What actionlint says of the workflows in a folder."""
    program = str(Path(sys.executable).with_name("actionlint"))
    files = map(str, sorted(folder.glob("*.yml")))
    config = str(ROOT / ".github" / "actionlint.yaml")
    # Without shellcheck and pyflakes, which are on some machines only.
    return subprocess.run(  # noqa: S603 - the environment's own
        [program, "-no-color", "-config-file", config, "-shellcheck=", "-pyflakes=", *files],
        check=False,
        capture_output=True,
        text=True,
    )


def test_actionlint_has_nothing_to_say() -> None:
    """Of any of them."""
    assert {path.name for path in WORKFLOWS} == {"nightly.yml", "retrain.yml", "test.yml"}
    found = linted(FOLDER)
    assert (found.returncode, found.stdout) == (0, "")


def test_actionlint_sees_what_is_wrong(tmp_path: Path) -> None:
    """A zone that there is not, and a matrix that there is not."""
    text = (FOLDER / "retrain.yml").read_text(encoding="utf-8")
    wrong = text.replace("Africa/Cairo", "Africa/Kairo").replace("matrix:", "matrices:")
    (tmp_path / "retrain.yml").write_text(wrong, encoding="utf-8")

    found = linted(tmp_path)

    assert found.returncode == 1
    assert "Africa/Kairo" in found.stdout
    assert '"matrices"' in found.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_calls_only_what_is_pinned(path: Path) -> None:
    """By its commit, with the version beside it; no token stays in the checkout."""
    text = path.read_text(encoding="utf-8")
    workflow = read(path)

    assert workflow["permissions"] == {"contents": "read"}
    for used in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 120
        checkout = job["steps"][0]
        assert checkout["uses"].startswith("actions/checkout@")
        assert checkout["with"] == {"persist-credentials": False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_runs_is_what_runs_on_a_desk(path: Path) -> None:
    """A target of the Makefile, or what continuous integration is elsewhere."""
    targets = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for job in read(path)["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert commands
        for command in commands:
            # Nothing that came from outside is put into a command.
            assert command in COMMANDS
            words = command.split()
            assert words[0] != "make" or set(words[1:]) <= set(targets)
    assert (ROOT / ".ci" / "run").is_file()


@pytest.mark.parametrize("uri", ["", "https://mlflow.example"])
def test_retraining_that_is_tracked_fetches_the_client(uri: str) -> None:
    """A checkout is clean on each run: what was installed by hand is gone."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "retrain"],  # noqa: S607 - the machine's
        check=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
    )

    assert ("requirements/tracking.txt" in done.stdout) is bool(uri)
    assert "credit-risk retrain" in done.stdout


def test_retraining_is_on_sundays_at_three_in_cairo_and_on_demand() -> None:
    """By the clock there, all year."""
    triggers = read(FOLDER / "retrain.yml")["on"]

    assert triggers["schedule"] == [{"cron": "0 3 * * 0", "timezone": "Africa/Cairo"}]
    portfolios = sorted(path.parent.name for path in ROOT.glob("portfolios/*/schema.yaml"))
    assert sorted(triggers["workflow_dispatch"]["inputs"]["portfolio"]["options"]) == portfolios
