"""bentofile.yaml and Dockerfile.j2: what is in the server's image, and what is not."""

from __future__ import annotations

import re
import shutil
import tomllib
from functools import cache
from pathlib import Path

import pytest
from bentoml._internal.bento.build_config import BentoBuildConfig, BentoPathSpec, CondaOptions
from bentoml._internal.container.generate import generate_containerfile

ROOT = Path(__file__).parents[1]


@cache
def config() -> BentoBuildConfig:
    """What `bentoml build` goes by."""
    with (ROOT / "bentofile.yaml").open(encoding="utf-8") as file:
        return BentoBuildConfig.from_yaml(file)


@cache
def contents() -> set[str]:
    """The files that it takes, of those that lie in the repository's own folders."""
    chosen = BentoPathSpec(config().include, config().exclude, str(ROOT))
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    paths = [path.relative_to(ROOT).as_posix() for path in [*found, *ROOT.glob("*")]]
    return {path for path in paths if (ROOT / path).is_file() and chosen.includes(path)}


def dockerfile(context: Path, monkeypatch: pytest.MonkeyPatch, working: Path) -> str:
    """As BentoML makes it, in a folder with the template, when it runs in another."""
    monkeypatch.chdir(working)
    (context / "env" / "python").mkdir(parents=True)
    (context / "env" / "python" / "requirements.txt").touch()
    shutil.copy(ROOT / "Dockerfile.j2", context)
    return generate_containerfile(
        config().docker, str(context), conda=CondaOptions(), bento_fs=context
    )


def test_the_bento_has_what_answering_takes_and_nothing_else() -> None:
    """The models are in it; what trains them, tests them and loads them is not."""
    found = contents()

    folders = {path.split("/")[0] for path in found if "/" in path}
    assert folders == {
        *("credit_risk", "monitoring", "packages", "portfolios", "regimes", "requirements"),
    }
    assert {path for path in found if "/" not in path} == {"service.py", "LICENSE"}
    assert "requirements/serve.txt" in found
    assert "credit_risk/evidence/pack.html.j2" in found
    assert not [path for path in found if "/training/" in path or "tests" in path.split("/")]
    for portfolio in ("personal-loans", "credit-cards"):
        version = (ROOT / "packages" / portfolio / "default").read_text(encoding="ascii").strip()
        assert f"packages/{portfolio}/{version}/manifest.json" in found
        assert f"portfolios/{portfolio}/schema.yaml" in found


def test_the_image_installs_the_lock_and_leaves_the_installer_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages on one base, of a version; into the second goes what the first made."""
    text = dockerfile(tmp_path, monkeypatch, tmp_path)
    build, final = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]

    base = str(config().docker.base_image)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert build.startswith(f"{base} AS build\n")
    assert final.startswith(f"{base}\n")
    assert "--require-hashes --requirement /tmp/serve.txt" in build
    assert "COPY src/requirements/serve.txt /tmp/serve.txt" in build
    assert "apt-get" not in text
    assert "pip" not in final
    assert re.findall(r"^COPY .*", final, re.MULTILINE) == [
        "COPY --from=build /opt/credit-risk /opt/credit-risk"
    ]


def test_the_image_runs_the_command_line_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is written is under /state, and BentoML starts workers that died again."""
    text = dockerfile(tmp_path, monkeypatch, tmp_path)

    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["10001:10001"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["credit-risk"].partition(":")
    assert f"'from {module} import {function}' '{function}()'" in text
    assert 'ENTRYPOINT ["credit-risk"]\nCMD ["serve"]' in text
    for said in ("TMPDIR=/state", "CREDIT_RISK_STATE_DIR=/state", "VOLUME /state"):
        assert said in text
    instructions = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in instructions if "BENTOML" in line]


def test_bentoml_finds_the_template_from_the_root_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it finds it from elsewhere too, `make image` need not change the folder any more."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert dockerfile(tmp_path / "one", monkeypatch, Path("/"))
    with pytest.raises(ValueError, match="outside of current working directory"):
        dockerfile(tmp_path / "other", monkeypatch, elsewhere)
