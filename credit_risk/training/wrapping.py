"""Packaging a user's own fitted scikit-learn pipeline.

The pipeline takes a frame of the schema's fields and offers ``predict_proba`` for the classes 0
and 1. Where all its parts have an equivalent it is compiled, and served as fast as ours; where
not, it is stored in skops' format, which runs no code when loaded, and served through
scikit-learn.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import skops.io
from sklearn.pipeline import Pipeline

from credit_risk.errors import CreditRiskError, PackageInvalid
from credit_risk.model import ModelSpec
from credit_risk.pipeline_model import read_skops
from credit_risk.training import assembly, compilation, preparation
from credit_risk.training.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.portfolio import Portfolio
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training


# What unpickling a file that is no pickle, or a damaged one, raises.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    IndexError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
)


class PickleRefused(CreditRiskError):
    """The file is a pickle, and nobody said that its code may run."""


def read_pipeline(file: Path, *, run_pickle_code: bool) -> Any:  # noqa: ANN401 - any classifier
    """Read a fitted pipeline from a skops file, or from a joblib or pickle file.

    Raises:
        PickleRefused: a pickle, and ``run_pickle_code`` is not set.
        PackageInvalid: the file cannot be read, or offers no ``predict_proba``.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        msg = f"{file}: cannot be read: {error.strerror}"
        raise PackageInvalid(msg) from error
    if file.suffix == ".skops":
        pipeline = read_skops(content, str(file))
    elif run_pickle_code:
        pipeline = _unpickled(file)
    else:
        msg = (
            f"{file} is a pickle: loading it runs whatever code is in it. Say "
            "--run-pickle-code if you made the file, or save it with skops.io.dump"
        )
        raise PickleRefused(msg)
    if not hasattr(pipeline, "predict_proba"):
        msg = f"{file}: it has no predict_proba"
        raise PackageInvalid(msg)
    if list(getattr(pipeline, "classes_", ())) != [0, 1]:
        msg = f"{file}: it is not fitted on the classes 0 and 1"
        raise PackageInvalid(msg)
    return pipeline


def _unpickled(file: Path) -> Any:  # noqa: ANN401 - any classifier
    try:
        return joblib.load(file)
    except (ImportError, AttributeError) as error:  # a class of a module that is not here
        msg = f"{file}: cannot be read: {error}"
        raise PackageInvalid(msg) from error
    except _UNREADABLE as error:
        # What it says of a file that is no pickle is a riddle, or the beginning of the file.
        msg = f"{file}: cannot be read: not a pickle, or not a whole one"
        raise PackageInvalid(msg) from error


def wrap(
    portfolio: Portfolio,
    training: Training,
    file: Path,
    data: Path,
    out: Path,
    *,
    run_pickle_code: bool = False,
    step: Callable[[str], None] = lambda _: None,
) -> Packaged:
    """Write the package of a user's pipeline under ``out``.

    Args:
        portfolio: schema, policy and reasons.
        training: names target, preparation and reference group.
        file: the fitted pipeline.
        data: labelled rows, best ones it was not fitted on: figures, profile and reference
            group come from them.
        out: folder that receives ``portfolio/version``.
        run_pickle_code: allow a pickle to be loaded, which runs its code.
        step: called with the name of each step as it begins.

    Raises:
        PickleRefused: see `read_pipeline`.
        PackageInvalid: see `read_pipeline`; or it cannot score a frame of the schema's fields,
            or has types that skops does not load safely.
        DataInvalid: the data cannot be used.
    """
    step("Reading the pipeline and the data")
    pipeline = read_pipeline(file, run_pickle_code=run_pickle_code)
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    try:
        pds = np.asarray(pipeline.predict_proba(prepared.frame)[:, 1], dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{file}: it does not take a frame of the schema's fields: {error}"
        raise PackageInvalid(msg) from error
    estimator = type(pipeline[-1] if isinstance(pipeline, Pipeline) else pipeline).__name__
    settings: dict[str, Any] = {"own_pipeline": file.name, "seed": training.seed}

    def package(compiled: compilation.Compiled | None, content: bytes) -> Packaged:
        candidate = assembly.Candidate(
            spec=compiled.spec if compiled else ModelSpec(kind="pipeline", estimator=estimator),
            arrays=compiled.arrays if compiled else {},
            pipeline=None if compiled else pipeline,
            skops=content,
            pds=pds,
            held_out_labels=prepared.labels,
            held_out_pds=pds,
            evaluation=evaluate(prepared.labels, pds, portfolio.policy),
            settings=settings,
            fitted_here=False,
        )
        return assembly.assemble(portfolio, training, prepared, candidate, out, step=step)

    if isinstance(pipeline, Pipeline):
        try:
            compiled = compilation.compile_pipeline(pipeline, portfolio.schema, estimator)
            return package(compiled, b"")
        except (compilation.NotCompilable, assembly.CompilationDiffers) as error:
            step(f"Keeping the pipeline as it is ({error})")
    # skops writes memory addresses: only a file that is kept as it is gives the same version again.
    content = file.read_bytes() if file.suffix == ".skops" else skops.io.dumps(pipeline)
    # What would not load in the server is refused here.
    read_skops(content, str(file))
    return package(None, content)
