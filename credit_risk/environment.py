"""What an answer was computed on: this program, the interpreter, the platform and the libraries.

The same package gives the same answer to the last bit on the same machine. Elsewhere the last bits
may differ, and with another version of a library more than these. So every decision names its
environment by a digest, and the record that a worker leaves when it starts holds the listing.
"""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from credit_risk import __version__
from credit_risk.documents import digest_json

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = (
    *("llvmlite", "numba", "numpy"),
    *("pandas", "scikit-learn", "scipy", "shap", "skops", "xgboost", "xgboost-cpu"),
)
"""What packages are scored with: ours by the first ones, somebody's own pipeline by all of them.

All that are installed are listed, whatever the package: a worker may be given another one.
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A listing, name to version or kind, and the SHA-256 (hex) that stands for it."""

    listing: dict[str, str]
    sha256: str


@cache
def here() -> Environment:
    """The environment of this process, which stays the same while it runs."""
    import numpy as np  # noqa: PLC0415 - most commands need none of it

    # What numpy found the processor to have; its loops differ by it.
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    listing = {
        "credit-risk": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip(),
        "processor": " ".join([*extensions.get("baseline", ()), *extensions.get("found", ())]),
    }
    for name in LIBRARIES:
        try:
            listing[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Environment(listing, digest_json(listing))


def differences(
    recorded: Mapping[str, str], other: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """What differs between two listings, each by its name; None where one lacks it."""
    names = dict.fromkeys((*recorded, *other))
    return {
        name: (recorded.get(name), other.get(name))
        for name in names
        if recorded.get(name) != other.get(name)
    }


def user() -> str:
    """Who runs this process; in containers often a number without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return str(os.getuid())
