"""The manifest: a package is whole or not, told without what it takes to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from credit_risk import manifest, package
from credit_risk.errors import PackageInvalid
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path


def test_a_package_is_called_the_same_whether_it_is_loaded_or_only_verified(
    tmp_path: Path,
) -> None:
    """And so is its policy."""
    folder = toys.write_package(tmp_path, "linear")
    verified, loaded = manifest.verify(folder), package.load(folder)

    assert (verified.version, verified.digest) == (loaded.version, loaded.digest)
    assert manifest.policy_version(folder, verified) == loaded.policy_version
    assert loaded.policy_version == f"2.1.0+{verified.files['policy.yaml'][:8]}"


def test_a_policy_without_a_version_is_told(tmp_path: Path) -> None:
    """A package may hold anything; its sums only say that it is what it was."""
    folder = toys.write_package(tmp_path, "linear", policy_yaml=b"portfolio: bicycle-leases\n")

    with pytest.raises(PackageInvalid, match=rf"package {folder.name}: .*version: Field required"):
        manifest.policy_version(folder, manifest.verify(folder))
