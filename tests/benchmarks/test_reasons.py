"""The comparison with shap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import reasons

if TYPE_CHECKING:
    from benchmarks.model import Material


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see that it works."""
    monkeypatch.setattr(reasons, "ROWS", 4)
    monkeypatch.setattr(reasons, "REPEATS", 1)


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0)])
def test_without_its_arguments_it_says_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
) -> None:
    """In its usage."""
    monkeypatch.setattr("sys.argv", ["reasons", *words])

    with pytest.raises(SystemExit) as ended:
        reasons.main()

    assert ended.value.code == code
    said = capsys.readouterr()
    assert "PACKAGE PIPELINE" in said.out + said.err


def test_both_explain_the_score_of_the_same_model(
    material: Material, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each adds up to it; ours is measured against the whole reference group."""
    words = ["reasons", str(material.package), str(material.pipeline)]
    monkeypatch.setattr("sys.argv", words)

    reasons.main()

    figures = json.loads(capsys.readouterr().out)
    assert (figures["reference_rows"], figures["background_rows"]) == (5_000, 100)
    assert min(figures["ours_us"], figures["shap_us"]) > 0
