"""Dependencies point one way, as the sources say themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted(
    path
    for pattern in ("*.py", "audit/*.py", "evidence/*.py")
    for path in (ROOT / "credit_risk").glob(pattern)
    if path.stem not in ("__init__", "__main__")
)

TRANSPORTS = {
    "bentoml",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "opentelemetry",
    "typer",
    "rich",
}
TRAINING = {
    "sklearn",
    "xgboost",
    "pandas",
    "pandera",
    "shap",
    "skops",
    "matplotlib",
    "joblib",
    "scipy",
    "torch",
}
OWN = {"credit_risk.training", "credit_risk.serving", "credit_risk.cli", "monitoring"}


def module(path: Path) -> str:
    """A file of the repository as the module it is."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path, *, types: bool = True) -> set[str]:
    """Dotted names that a file imports anywhere in it, as modules where they may be ones.

    ``from credit_risk import trees`` counts as credit_risk and as credit_risk.trees. Imports for
    type checkers only are left out unless ``types``.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            origin = node.module or ""
            found.add(origin)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            if types or not _is_for_types(child):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _is_for_types(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def within(names: set[str], forbidden: set[str]) -> set[str]:
    """Those of ``names`` that are one of ``forbidden`` or lie within one."""
    return {name for name in names for stem in forbidden if f"{name}.".startswith(f"{stem}.")}


def sources(folder: str) -> list[Path]:
    """Every Python file under a folder of the repository."""
    return sorted((ROOT / folder).rglob("*.py"))


def offences(paths: list[Path], forbidden: set[str]) -> dict[str, set[str]]:
    """Files that import what they must not, and what."""
    found = {str(path.relative_to(ROOT)): within(imports(path), forbidden) for path in paths}
    return {name: names for name, names in found.items() if names}


def test_the_rules_below_see_what_they_look_for(tmp_path: Path) -> None:
    """An import within a function, of a part, and for types only."""
    path = tmp_path / "example.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "from credit_risk import trees\n"
        "if TYPE_CHECKING:\n    import pandas as pd\n"
        "def f():\n    import sklearn.linear_model\n"
        "import scikit\n",
        encoding="utf-8",
    )

    assert within(imports(path), {"sklearn", "pandas", "credit_risk.trees", "sci"}) == {
        "sklearn.linear_model",
        "pandas",
        "credit_risk.trees",
    }
    assert within(imports(path, types=False), {"pandas"}) == set()
    assert {"schema", "policy", "trees", "scoring"} <= {path.stem for path in CORE}


@pytest.mark.parametrize("path", CORE, ids=module)
def test_the_core_knows_no_transport_and_no_training_library(path: Path) -> None:
    """Only a user's own pipeline is scored by the libraries that made it."""
    allowed = {"sklearn", "pandas", "shap", "skops"} if path.stem == "pipeline_model" else set()

    assert within(imports(path), (TRANSPORTS | TRAINING | OWN) - allowed) == set()


def test_only_a_package_that_holds_a_pipeline_loads_its_libraries() -> None:
    """What serves our own models imports none of them, not even at one remove."""
    core = [module(path) for path in CORE if path.stem != "pipeline_model"]
    program = "\n".join(
        [
            "import sys",
            *(f"import {name}" for name in core),
            "print(*sorted({name.partition('.')[0] for name in sys.modules}))",
        ]
    )

    loaded = subprocess.run(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()

    assert "numba" in loaded
    assert set(loaded) & (TRANSPORTS | {"sklearn", "xgboost", "pandas", "shap", "skops"}) == set()


def test_the_process_that_starts_the_workers_loads_nothing_that_decides() -> None:
    """Workers start one import of it sooner, and its memory is not a worker's."""
    program = "import sys, service; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.run(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()

    assert "bentoml" in loaded
    assert set(loaded) & {"numba", "sqlalchemy", "sklearn", "pandas", "shap", "scipy"} == set()


def test_a_rollback_waits_for_no_library_that_scores() -> None:
    """They take longer to load than all else that it does, and somebody is in a hurry."""
    needed = ("credit_risk.cli", "credit_risk.serving.activation", "credit_risk.audit.log")
    program = f"import sys, {', '.join(needed)}; print(*sys.modules)"

    loaded = subprocess.run(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()

    assert "sqlalchemy" in loaded
    assert set(loaded) & {"numpy", "numba", "bentoml", "credit_risk.package"} == set()


def test_only_bulk_scoring_knows_arrow_and_spark_and_no_server_knows_it() -> None:
    """Arrow and Spark are libraries that the serving image does not hold."""
    bulk = {"bulk", "bulk_spark"}
    rest = [path for path in CORE if path.stem not in bulk]
    of_bulk = {f"credit_risk.{name}" for name in bulk}

    assert offences(rest, {"pyarrow", "pyspark"} | of_bulk) == {}
    assert offences([path for path in CORE if path.stem == "bulk"], {"pyspark"}) == {}
    assert offences(sources("credit_risk/serving"), {"pyarrow", "pyspark"} | of_bulk) == {}
    assert offences(sources("monitoring"), {"pyarrow", "pyspark"} | of_bulk) == {}


def test_core_modules_import_each_other_in_one_direction() -> None:
    """No circle among them; a type's name alone makes none."""
    names = {module(path): path for path in CORE}
    graph = {name: imports(path, types=False) & set(names) for name, path in names.items()}

    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")

    assert order[0] == "credit_risk.errors" or "credit_risk.errors" not in graph[order[0]]
    assert graph["credit_risk.errors"] == set()


def test_training_knows_neither_serving_nor_monitoring() -> None:
    """A model is made without a server; tables for people are no transport."""
    forbidden = {"credit_risk.serving", "credit_risk.cli", "monitoring"} | TRANSPORTS - {"rich"}

    assert offences(sources("credit_risk/training"), forbidden) == {}


def test_serving_does_not_know_training() -> None:
    """A server is installed without scikit-learn."""
    forbidden = {"credit_risk.training", "credit_risk.cli", "sklearn", "xgboost", "pandas", "shap"}

    assert offences(sources("credit_risk/serving"), forbidden) == {}


def test_monitoring_knows_the_core_only() -> None:
    """What is measured does not depend on who asks for it; the command puts things together."""
    forbidden = {"credit_risk.serving", "credit_risk.training", "credit_risk.cli"}
    modules = [path for path in sources("monitoring") if path.stem != "__main__"]

    assert offences(modules, forbidden) == {}
    assert offences(sources("monitoring"), {"credit_risk.training"}) == {}


def test_dashboards_are_apart() -> None:
    """They name metrics as text, which a test compares; a server is installed without them."""
    product = [*sources("credit_risk"), *sources("monitoring"), *ROOT.glob("*.py")]

    assert offences(sources("grafana"), {"credit_risk", "monitoring"}) == {}
    assert offences(product, {"grafana", "grafana_foundation_sdk"}) == {}


def test_no_product_file_imports_the_tests() -> None:
    """Toys stay here."""
    files = [*sources("credit_risk"), *sources("monitoring"), *ROOT.glob("*.py")]

    assert offences(files, {"tests", "pytest", "hypothesis"}) == {}


def test_each_core_module_has_its_tests() -> None:
    """One file of tests for each module, under the same name; errors are met in all of them."""
    core = ROOT / "credit_risk"
    tests = {path: path.relative_to(core).with_name(f"test_{path.name}") for path in CORE}
    # Records are what the log's tests are about, and tables those of the database.
    untested = [
        module(path)
        for path, test in tests.items()
        if path.stem not in {"errors", "records", "tables"}
        and not (ROOT / "tests" / test).is_file()
    ]

    assert untested == []
