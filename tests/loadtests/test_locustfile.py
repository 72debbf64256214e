"""The users, as Locust's own command sees them; nothing else ever imports it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from loadtests import run

ROOT = Path(__file__).parents[2]


def test_locust_finds_a_user_for_every_scenario() -> None:
    """By the names that runs ask for."""
    listed = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--list"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()

    assert set(run.USERS.values()) <= set(listed)


def test_only_the_locustfile_imports_locust() -> None:
    """Locust replaces ssl and sockets when it is imported: no place for that in other programs."""
    importing = set()
    for path in (ROOT / "loadtests").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "locust" for name in names):
                importing.add(path.stem)

    assert importing == {"locustfile"}
