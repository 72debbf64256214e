"""What an answer was computed on, and how two such places differ."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import __version__, environment

LISTINGS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4)


def test_it_names_what_scoring_depends_on() -> None:
    """Program, interpreter, platform and the libraries by their versions."""
    listing = environment.here().listing

    assert listing["credit-risk"] == __version__
    assert listing["numpy"] == np.__version__
    assert listing["numba"] == numba.__version__
    assert platform.python_version() in listing["python"]
    assert platform.machine() in listing["platform"]
    assert all(listing.values())


def test_a_library_that_is_not_installed_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A serving image has no scikit-learn."""
    monkeypatch.setattr(environment, "LIBRARIES", ("numpy", "no-such-library"))

    listing = environment.here.__wrapped__().listing

    assert "numpy" in listing
    assert "no-such-library" not in listing


def test_the_digest_is_of_the_listing_as_canonical_json() -> None:
    """Anybody can compute it again from the record of a start."""
    here = environment.here()
    text = json.dumps(here.listing, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert here.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_another_process_here_has_the_same_environment() -> None:
    """Nothing in it is a process's own."""
    program = "from credit_risk import environment; print(environment.here().sha256)"

    told = subprocess.run(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout

    assert told.strip() == environment.here().sha256


@given(recorded=LISTINGS, other=LISTINGS)
def test_differences_are_what_turns_one_listing_into_the_other(
    recorded: dict[str, str], other: dict[str, str]
) -> None:
    """Nothing that is the same is told, and nothing that differs is left out."""
    found = environment.differences(recorded, other)

    turned = recorded | {name: now for name, (_, now) in found.items() if now is not None}
    for name, (before, now) in found.items():
        assert before == recorded.get(name) != now
        if now is None:
            del turned[name]
    assert turned == other
