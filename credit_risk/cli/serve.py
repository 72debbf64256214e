"""`credit-risk serve`."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from credit_risk.cli.opening import chosen_portfolio, log_and_store
from credit_risk.cli.printing import print_progress
from credit_risk.errors import CannotServe
from credit_risk.settings import PREFIX, Settings


def serve() -> None:
    """Serve the portfolio in the foreground until interrupted.

    Checks first that the package to serve is whole and answers its golden records, so that a
    wrong one is one line here and not a worker that keeps dying.
    """
    from credit_risk import regimes

    settings, _ = chosen_portfolio(None)
    regimes.load(settings.regimes_dir, settings.regime)
    with _claimed(settings), _uncollected():
        with log_and_store(settings) as (log, store):
            from credit_risk.audit import keys
            from credit_risk.serving.following import package_to_serve

            keys.signing_key(settings, make=True)
            # A chain that nothing can be added to would have every worker die.
            log.ping().result()
            package = package_to_serve(settings, log, store)
        print_progress(
            f"serving {package.portfolio} {package.version} on "
            f"http://{settings.host}:{settings.port} "
            f"with {settings.workers} worker{'s' if settings.workers > 1 else ''}, "
            f"state under {settings.state_dir.absolute()}"
        )
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            # The workers run in another folder.
            f"{PREFIX}STATE_DIR": str(settings.state_dir.absolute()),
            f"{PREFIX}PORTFOLIOS_DIR": str(settings.portfolios_dir.absolute()),
            f"{PREFIX}PACKAGES_DIR": str(settings.packages_dir.absolute()),
            f"{PREFIX}REGIMES_DIR": str(settings.regimes_dir.absolute()),
            f"{PREFIX}DATABASE_URL": settings.audit_url.render_as_string(hide_password=False),
            **{
                f"{PREFIX}{name.upper()}": str(path.absolute())
                for name in Settings.model_fields
                if name.endswith("_file") and (path := getattr(settings, name)) is not None
            },
            # Workers' metrics files and BentoML's own files: one folder for each state directory.
            "BENTOML_HOME": str(settings.state_dir.absolute() / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = [
            *(sys.executable, "-m", "bentoml", "serve", "service:CreditRiskServer"),
            *("--working-dir", str(root)),
            *("--host", settings.host, "--port", str(settings.port)),
            *("--timeout-keep-alive", str(settings.keep_alive_seconds)),
            *("--timeout-graceful-shutdown", str(settings.shutdown_seconds)),
        ]
        os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No looking for garbage: what is imported is none, and it takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _claimed(settings: Settings) -> Iterator[None]:
    """Make sure that port and state directory are free, and keep the latter for this process.

    A second server in the same state directory would empty the first one's metrics before it
    found the port taken.

    Raises:
        CannotServe: one of the two is taken.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with (settings.state_dir / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another server is using the state directory {settings.state_dir.absolute()}"
            raise CannotServe(msg) from None
        _check_port(settings)
        # Held by what this process becomes, until it ends.
        os.set_inheritable(lock.fileno(), True)
        yield


def _check_port(settings: Settings) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        msg = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise CannotServe(msg) from error
