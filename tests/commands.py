"""Where commands run in tests, what they print, and what is there for them to find."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credit_risk.audit.chain import Content, form
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from tests import served, toys

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


ROOT = Path(__file__).parents[1]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours: some build servers ask for them though nobody looks."""
PLAIN = ("PORTFOLIO", "PORT", "WORKERS", "STATE_DIR", "MODEL_VERSION")


@dataclass
class Outcome:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Standard output, read as JSON."""
        return json.loads(self.out)


@dataclass
class Place:
    """A toy portfolio with its shipped packages and a state directory, all made up."""

    folder: Path
    trees: str
    linear: str

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "state"

    def store(self) -> Store:
        """The store under the state directory."""
        return Store(Settings(state_dir=self.state, packages_dir=self.folder / "shipped"))

    def alter(self, version: str, name: str) -> None:
        """Alter a file of an installed package."""
        file = self.store().path(toys.NAME, version) / name
        file.write_bytes(file.read_bytes() + b" ")


def refused(outcome: Outcome, code: int, *told: str) -> None:
    """It ended with that code, and one line on standard error that says why."""
    assert outcome.code == code
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    for words in told:
        assert words in line


def decide(place: Place, package: ModelPackage, *bodies: object) -> list[str]:
    """Have a server answer; returns the ids of its records, the oldest first."""
    return decide_in(place.state, package, *bodies)


def decide_in(state: Path, package: ModelPackage, *bodies: object) -> list[str]:
    """`decide` with another state directory."""
    with served.serving(package, state) as server:
        for body in bodies:
            server.post("/predict", body)
        return [record.id for record in reversed(server.records())]


def listed(run: Callable[..., Outcome], *filters: str) -> list[str]:
    """The ids that are listed."""
    return [row["id"] for row in run("decisions", "list", "--json", *filters).json()]


def leases_file(place: Place) -> Path:
    """Three leases, the second of nobody's age."""
    file = place.folder / "leases.csv"
    rows = [toys.SAFE, toys.RISKY | {"age": 7}, toys.RISKY]
    lines = [",".join(["lease", *toys.SAFE])]
    lines += [",".join([f"L{i}", *map(str, row.values())]) for i, row in enumerate(rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def altered(place: Place, record_id: str, **changed: object) -> None:
    """Alter a record in the database, as nobody should, and make its hash anew."""
    columns = ", ".join((*Content._fields, "previous"))
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        asked = f"SELECT {columns} FROM records WHERE id = ?"  # noqa: S608 - our own names
        *fields, previous = database.execute(asked, (record_id,)).fetchone()
        before = Content(*fields)
        content = before._replace(body=json.dumps(json.loads(before.body) | changed))
        database.execute(
            "UPDATE records SET body = ?, hash = ? WHERE id = ?",
            (content.body, form(content).hash(previous), record_id),
        )
        database.commit()
