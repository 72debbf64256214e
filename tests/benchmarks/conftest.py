"""The material of a run, made once: small, but with the portfolio's own number of trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.model import Material


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """Made of fewer rows than a run is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "TRAINING_ROWS", 3_000)
        patch.setattr(model, "BATCHES", 2)
        yield model.make(tmp_path_factory.mktemp("material"))
