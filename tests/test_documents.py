"""Reading data files: each wrong one is refused in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.errors import PortfolioInvalid

if TYPE_CHECKING:
    from pathlib import Path


class Limit(Document):
    """One number of a `Product`."""

    amount: float


class Product(Document):
    """A small document to read."""

    name: str
    limits: tuple[Limit, ...] = ()


def test_a_good_file_becomes_an_object(tmp_path: Path) -> None:
    """YAML of the right shape is read."""
    path = tmp_path / "product.yaml"
    path.write_text("name: lease\nlimits:\n  - {amount: 3}\n", encoding="utf-8")

    assert documents.read(Product, path) == Product(name="lease", limits=(Limit(amount=3),))


def test_a_document_cannot_be_changed() -> None:
    """What was checked stays as it was checked."""
    product = Product(name="lease")

    with pytest.raises(ValidationError):
        product.name = "loan"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: lease\nlimits:\n  - {amount: much}\n", "limits.0.amount: "),
        ("limits: []\n", "name: "),
        ("name: lease\nowner: x\n", "owner: "),
        ("- name\n", "document: "),
        ("", "document: "),
    ],
)
def test_a_wrong_document_is_refused_by_name_and_place(text: str, place: str) -> None:
    """The message says which file and where in it."""
    with pytest.raises(PortfolioInvalid) as caught:
        documents.parse(Product, text, "product.yaml")

    assert str(caught.value).startswith(f"product.yaml: {place}")


def test_every_wrong_place_is_named_at_once() -> None:
    """Nobody has to mend a file one message at a time."""
    with pytest.raises(PortfolioInvalid, match=r"name: .*; limits\.0\.amount: .*; owner: "):
        documents.parse(Product, "limits: [{amount: much}]\nowner: x\n", "product.yaml")


@pytest.mark.parametrize("text", ["name: [", "name: 'lease", "\tname: lease", "name: 2024-13-45"])
def test_what_is_not_yaml_is_refused_by_name(text: str) -> None:
    """Broken YAML, and a date that does not exist, are refused like any other wrong file."""
    with pytest.raises(PortfolioInvalid, match=r"^product\.yaml: not valid YAML: "):
        documents.parse(Product, text, "product.yaml")


def test_yaml_that_would_make_objects_is_refused() -> None:
    """A data file runs no code."""
    with pytest.raises(PortfolioInvalid, match="not valid YAML"):
        documents.parse(Product, "name: !!python/object/apply:os.getcwd []", "product.yaml")


@pytest.mark.parametrize(
    "text", ["name: a\nname: b\n", "name: a\nlimits:\n  - {amount: 1, amount: 2}\n"]
)
def test_a_key_given_twice_is_refused(text: str) -> None:
    """Which of two cut-offs was meant is not for a parser to say."""
    with pytest.raises(PortfolioInvalid, match="given twice"):
        documents.parse(Product, text, "product.yaml")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the path and what the system said."""
    path = tmp_path / "absent.yaml"

    with pytest.raises(PortfolioInvalid) as caught:
        documents.read(Product, path)

    assert str(caught.value) == f"{path}: cannot be read: No such file or directory"


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused like any other wrong file."""
    path = tmp_path / "product.yaml"
    path.write_bytes(b"name: \xff\xfe")

    with pytest.raises(PortfolioInvalid) as caught:
        documents.read(Product, path)

    assert str(caught.value) == f"{path}: not UTF-8 text"


def test_a_digest_follows_the_content_and_not_the_layout() -> None:
    """Order of keys, quotes, comments and flow style change nothing; a value does."""
    block = documents.parse(Product, "name: lease\nlimits:\n  - amount: 3\n", "a")
    flow = documents.parse(Product, "# same\nlimits: [{amount: 3.0}]\nname: 'lease'", "b")
    other = documents.parse(Product, "name: lease\nlimits: [{amount: 4}]", "c")

    assert documents.digest(block) == documents.digest(flow)
    assert documents.digest(block) != documents.digest(other)


def test_a_digest_is_sha256_of_canonical_json() -> None:
    """Anyone can compute it again: sorted keys, no spaces, UTF-8."""
    # printf '{"a":[1,null],"é":"x"}' | sha256sum
    expected = "541c0ba35c5efbb0dcb2cd3a0e5bb67edfbf62a4b31356f8dd0fd22283e90059"

    assert documents.digest_json({"é": "x", "a": [1, None]}) == expected


def test_a_number_that_is_not_one_survives_being_written() -> None:
    """NaN in a document is written as NaN, never as null."""
    limit = Limit(amount=float("nan"))

    assert limit.model_dump_json() == '{"amount":NaN}'
