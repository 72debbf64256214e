"""The folder of an evidence pack: what it was made from, the pack to read and as JSON, and sums."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credit_risk.errors import OutputRefused

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

PACKAGE, REGIME = "package", "regime.yaml"
_FOLDER = Path(__file__).parent


def check_free(folder: Path) -> None:
    """See that a pack can have the folder.

    Raises:
        OutputRefused: it is there already.
    """
    if folder.exists():
        raise OutputRefused(f"{folder} is there already; a pack is a folder of its own")


def write(made: dict[str, Any], package: ModelPackage, regime_file: Path, folder: Path) -> None:
    """Write a pack into a folder of its own.

    Args:
        made: see `pack`.
        package: its files are copied beside it.
        regime_file: as well.
        folder: is made.

    Raises:
        OutputRefused: the folder is there already.
    """
    # Here and not above: no server needs them.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from markdown_it import MarkdownIt  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415

    check_free(folder)
    folder.mkdir(parents=True)
    shutil.copytree(package.path, folder / PACKAGE)
    shutil.copyfile(regime_file, folder / REGIME)
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "evidence.json").write_text(text + "\n", encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    card = markdown.render((folder / PACKAGE / "card.md").read_text(encoding="utf-8"))
    page = environment.get_template("pack.html.j2").render(
        pack=made,
        package=PACKAGE,
        regime=REGIME,
        files={path.relative_to(folder).as_posix() for path in folder.rglob("*")},
        # Safe: made from text in which no HTML is let through.
        card=Markup(card.replace('src="plots/', f'src="{PACKAGE}/plots/')),  # noqa: S704
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    sums = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in sums]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
