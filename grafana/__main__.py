"""Write the dashboards; with ``--check``, say which of those on disk are not what this would write.

Exit codes: 0 done, or nothing differs; 1 something differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import audit, decisions, model_health, service

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = (service, decisions, model_health, audit)


def made() -> dict[str, str]:
    """The text of each dashboard by its uid; the same text every time."""
    dashboards = [module.dashboard() for module in DASHBOARDS]
    return {
        str(dashboard.uid): json.dumps(dashboard, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        for dashboard in dashboards
    }


def differing(folder: Path) -> list[str]:
    """The names of files in a folder that are missing, stale, or of no dashboard."""
    texts = {f"{uid}.json": text for uid, text in made().items()}
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in texts | there if texts.get(name) != there.get(name))


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Do what the module says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args(arguments).check:
        for name in (names := differing(folder)):
            print(f"{name}: not what `make dashboards` writes", file=sys.stderr)  # noqa: T201
        return 1 if names else 0
    for name in differing(folder):
        (folder / name).unlink(missing_ok=True)
    for uid, text in made().items():
        (folder / f"{uid}.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
