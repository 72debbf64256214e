"""Merkle trees: the published roots, the definition word by word, and no path but the right one."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk.audit import merkle

# The entries that implementations of RFC 6962 and RFC 9162 are tested with, and their roots.
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
TREES = st.lists(st.binary(max_size=40), min_size=1, max_size=70)


def defined(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, as it is written there."""
    if len(entries) < 2:
        return sha256(b"\x00" + entries[0]).digest() if entries else sha256().digest()
    split = _below(len(entries))
    return sha256(b"\x01" + defined(entries[:split]) + defined(entries[split:])).digest()


def defined_path(entries: list[bytes], index: int) -> list[bytes]:
    """PATH of RFC 9162, section 2.1.3.1, as it is written there."""
    if len(entries) == 1:
        return []
    split = _below(len(entries))
    if index < split:
        return [*defined_path(entries[:split], index), defined(entries[split:])]
    return [*defined_path(entries[split:], index - split), defined(entries[:split])]


def _below(size: int) -> int:
    """The largest power of two below."""
    return 1 << ((size - 1).bit_length() - 1)


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_those_published(size: int) -> None:
    """Of no entry, one, and so on."""
    assert merkle.root(ENTRIES[:size]).hex() == ROOTS[size]


@given(TREES, st.lists(st.integers(1, 9), min_size=1))
def test_a_tree_grown_in_chunks_is_the_tree_as_defined(
    entries: list[bytes], sizes: list[int]
) -> None:
    """However many come at once, and at every size on the way."""
    tree = merkle.Tree()
    done = 0
    while done < len(entries):
        size = sizes[done % len(sizes)]
        tree.add(entries[done : done + size])
        done = min(done + size, len(entries))
        assert (tree.size, tree.root()) == (done, defined(entries[:done]))


@given(TREES, st.data())
def test_a_path_leads_to_the_root_and_is_the_path_as_defined(
    entries: list[bytes], data: st.DataObject
) -> None:
    """From each place."""
    index = data.draw(st.integers(0, len(entries) - 1))
    found = merkle.path(entries, index)

    assert found == defined_path(entries, index)
    assert merkle.leads(entries[index], index, len(entries), merkle.root(entries), found)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70, unique=True), st.data())
def test_nothing_else_leads_there(entries: list[bytes], data: st.DataObject) -> None:
    """Another entry, place, root, or path: one shorter, one longer, one with a bit changed."""
    index = data.draw(st.integers(0, len(entries) - 1))
    found, root, size = merkle.path(entries, index), merkle.root(entries), len(entries)
    entry = entries[index]
    altered = [*found]
    if altered:
        place = data.draw(st.integers(0, len(altered) - 1))
        altered[place] = bytes([altered[place][0] ^ 1]) + altered[place][1:]

    assert not merkle.leads(entry + b"\0", index, size, root, found)
    assert not merkle.leads(entry, index, size, sha256(root).digest(), found)
    assert not merkle.leads(entry, index, size, root, [*found, root])
    assert not merkle.leads(entry, -1, size, root, found)
    assert not merkle.leads(entry, size, size, root, found)
    if found:
        assert not merkle.leads(entry, index, size, root, found[:-1])
        assert not merkle.leads(entry, index, size, root, altered)
        assert not merkle.leads(entry, index ^ 1, size, root, found)


def test_a_path_needs_an_entry_that_is_there() -> None:
    """Neither before the first nor behind the last."""
    for index in (-1, 1):
        with pytest.raises(IndexError):
            merkle.path([b"only"], index)
