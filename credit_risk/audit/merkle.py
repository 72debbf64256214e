"""Merkle trees as RFC 9162 has them: roots, inclusion paths, and whether a path leads to a root.

Section 2.1.1: the hash of a leaf is SHA-256(0x00 || entry), that of a node SHA-256(0x01 || left ||
right), and the left side of a tree has as many leaves as the largest power of two below its size.
Joining neighbours level by level, with what is left over going up as it is, comes to the same tree.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY = sha256().digest()
"""The root of the tree without leaves."""


class Tree:
    """A tree that grows at its end, of which no more is kept than its root needs."""

    def __init__(self) -> None:
        self.size = 0
        # By level, the root of a whole tree of 2**level leaves that has no neighbour yet.
        self._single: list[bytes | None] = []

    def add(self, entries: Sequence[bytes]) -> None:
        """Put entries behind those that are there; many at once is the quickest."""
        self.size += len(entries)
        nodes = _leaves(entries)
        level = 0
        while nodes:
            if level == len(self._single):
                self._single.append(None)
            single = self._single[level]
            if single is not None:
                nodes.insert(0, single)
            self._single[level] = nodes.pop() if len(nodes) % 2 else None
            nodes = _joined(nodes)
            level += 1

    def root(self) -> bytes:
        """The root over all entries so far, 32 bytes."""
        right: bytes | None = None
        for left in self._single:
            if left is not None:
                right = left if right is None else _node(left, right)
        return EMPTY if right is None else right


def root(entries: Sequence[bytes]) -> bytes:
    """The root of the tree over the entries."""
    tree = Tree()
    tree.add(entries)
    return tree.root()


def path(entries: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion path of an entry, from its neighbour up (section 2.1.3.1).

    Raises:
        IndexError: there is no such entry.
    """
    if not 0 <= index < len(entries):
        raise IndexError(index)
    found: list[bytes] = []
    nodes = _leaves(entries)
    while len(nodes) > 1:
        if index ^ 1 < len(nodes):
            found.append(nodes[index ^ 1])
        left_over = nodes[len(nodes) - len(nodes) % 2 :]
        nodes = _joined(nodes) + left_over
        index //= 2
    return found


def leads(entry: bytes, index: int, size: int, to: bytes, along: Iterable[bytes]) -> bool:
    """Whether a path leads from an entry to the root of a tree of ``size`` (section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    last = size - 1
    reached = sha256(b"\x00" + entry).digest()
    for neighbour in along:
        if last == 0:
            return False
        if index % 2 or index == last:
            reached = _node(neighbour, reached)
            while not index % 2 and index:
                index, last = index // 2, last // 2
        else:
            reached = _node(reached, neighbour)
        index, last = index // 2, last // 2
    return last == 0 and reached == to


def _leaves(entries: Sequence[bytes]) -> list[bytes]:
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def _joined(nodes: list[bytes]) -> list[bytes]:
    """The level above; of a number that is odd, without the last."""
    return [_node(*pair) for pair in zip(nodes[::2], nodes[1::2], strict=False)]


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
