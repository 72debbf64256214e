"""docs/portfolios.md: the example runs as it stands, and every key there is has its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from credit_risk import package, scoring
from credit_risk.documents import Document
from credit_risk.policy import Policy
from credit_risk.promotion import PromotionPolicy
from credit_risk.reasons import ReasonDictionary
from credit_risk.retraining import MonitoringPolicy
from credit_risk.schema import Schema
from credit_risk.simulation import Scenarios
from credit_risk.training.settings import Training
from credit_risk.training.validation import ValidationPolicy
from tests.test_readme import application_sent

PAGE = (Path(__file__).parents[1] / "docs" / "portfolios.md").read_text(encoding="utf-8")
NAME = "machine-leases"
FILES = {
    "schema": Schema,
    "policy": Policy,
    "reasons": ReasonDictionary,
    "training": Training,
    "scenarios": Scenarios,
    "monitoring": MonitoringPolicy,
    "validation": ValidationPolicy,
    "promotion": PromotionPolicy,
}


def documents(kind: object) -> set[type[Document]]:
    """The document and those within it."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {found for part in get_args(kind) for found in documents(part)}
    assert issubclass(kind, Document)
    seen = {kind}
    for field in kind.model_fields.values():
        if kind.__name__ not in str(field.annotation):  # a quantity may hold quantities
            seen |= documents(field.annotation)
    return seen


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_explained(name: str) -> None:
    """In the section of its file."""
    section = PAGE.split(f"\n## {name}.yaml\n")[1].split("\n## ")[0]
    keys = {key for kind in documents(FILES[name]) for key in kind.model_fields}

    explained = set(re.findall(r"`([a-z_0-9]+)`", section))
    explained |= {word for group in re.findall(r"\{(.*?)\}", section) for word in group.split(", ")}
    explained |= {word.partition(":")[0] for word in explained}
    assert keys - explained == set()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which somebody followed the page up to the server's start."""
    root = tmp_path_factory.mktemp("repository")
    (root / ".venv").symlink_to(sys.prefix)
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    commands = [text for kind, text in blocks if kind == "sh"]
    (root / "portfolios" / NAME).mkdir(parents=True)
    for kind, text in blocks:
        if kind != "sh":
            (root / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    subprocess.run(  # noqa: S603 - the page's own commands
        ["/bin/sh", "-eu", "-c", "".join(commands[:2])],
        cwd=root,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "CREDIT_RISK_PORTFOLIOS_DIR": "portfolios",
            "CREDIT_RISK_PACKAGES_DIR": "packages",
        },
        check=True,
    )
    return root


def test_the_example_trains_and_decides_as_the_page_says(root: Path) -> None:
    """The package is the one to serve, and the call's application gets the answer told."""
    folder = root / "packages" / NAME
    loaded = package.load(folder / (folder / "default").read_text(encoding="utf-8").strip())
    assert 0.7 < loaded.metrics["hold_out"]["roc_auc"] < 0.95

    application = loaded.schema.validate_application(application_sent(PAGE))
    (decision,) = scoring.decide(loaded, [application])

    told = re.search(r"The answer is (\w+), with the reason `(\w+)`", PAGE)
    assert told is not None
    assert decision.outcome.decision == told.group(1)
    assert told.group(2) in [reason.code for reason in decision.reasons]
