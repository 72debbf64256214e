"""Reading the portfolio's data files: YAML in, checked objects out, one kind of error.

A portfolio is data. Its files (schema, policy, reasons, training) are each described by a
pydantic model; this module is the only place that reads them, so that each wrong file is refused
in the same words, naming the file and the place in it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from credit_risk.errors import PortfolioInvalid

if TYPE_CHECKING:
    from pathlib import Path


class Document(BaseModel):
    """Base of every data file's model: unknown keys are refused, objects are immutable."""

    # NaN is written as NaN, not as null: an encoder's fill is NaN where the trees take the missing.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


D = TypeVar("D", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys: PyYAML would let the last of two cut-offs win, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """One mapping; raises ConstructorError for a key given twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse(kind: type[D], text: str, name: str) -> D:
    """Check YAML ``text`` against ``kind``.

    Raises:
        PortfolioInvalid: not YAML, or not such a document; names ``name`` and the place in it.
    """
    try:
        return kind.model_validate(yaml.load(text, _Loader))  # noqa: S506 - a safe loader
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'document'}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        msg = f"{name}: {places}"
        raise PortfolioInvalid(msg) from error
    except (yaml.YAMLError, ValueError) as error:
        # A plain ValueError is PyYAML's answer to a date that does not exist.
        msg = f"{name}: not valid YAML: {error}"
        raise PortfolioInvalid(msg) from error


def read(kind: type[D], path: Path) -> D:
    """Read and check the file at ``path``.

    Raises:
        PortfolioInvalid: no such file, not UTF-8, or see `parse`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise PortfolioInvalid(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text"
        raise PortfolioInvalid(msg) from error
    return parse(kind, text, str(path))


def digest(document: BaseModel) -> str:
    """SHA-256 (hex) of the document's canonical JSON: key order and YAML layout do not matter."""
    return digest_json(document.model_dump(mode="json", by_alias=True))


def digest_json(value: Any) -> str:  # noqa: ANN401 - any JSON value is what this is for
    """SHA-256 (hex) of ``value`` as canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
