"""A pack is a folder of its own that anybody can check."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import OutputRefused
from credit_risk.evidence import folders, packs
from tests import looks, toys
from tests.evidence.packing import REGIME, REGIMES, pack
from tests.recorded import NOON, decided

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage


def test_a_pack_is_a_folder_that_can_be_checked(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Every file is in the sums, and every file a statement rests on is there, as it says."""
    log.append(decided(made, toys.applications(1))).result()
    folder = tmp_path / "pack"
    file = REGIMES / "us-ecoa.yaml"
    found = packs.pack(made, REGIME, folders.sha256_of(file), log, packs.Findings(), made_at=NOON)

    folders.write(found, made, file, folder)

    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest
    rests = {
        (s["rests_on"], s["sha256"]) for t in found["topics"].values() for s in t["statements"]
    }
    assert {name for name, _ in rests} & set(sums)
    assert all(sums[name] == digest for name, digest in rests if name in sums)
    page = (folder / "index.html").read_text()
    for topic in found["topics"].values():
        assert topic["title"] in page
    assert f"<h1>{made.schema.title}: model {made.version}</h1>" in page
    assert "<h1>A toy</h1>" in page
    assert all(f'href="{name}"' in page for name, _ in rests if name in sums)
    assert all(f'id="section-{section.id}"' in page for section in REGIME.sections)
    card = page.index('<div class="card">')
    looks.check(page[:card] + page[page.index("</details>", card) :])


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, made: ModelPackage) -> None:
    """A pack never mixes with another."""
    with pytest.raises(OutputRefused, match="is there already"):
        folders.write(pack(made, None), made, REGIMES / "us-ecoa.yaml", tmp_path)
