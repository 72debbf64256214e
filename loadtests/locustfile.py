"""The users, for Locust's own command line; ``python -m loadtests`` runs it with all it needs.

By itself, with Locust's page in a browser, against a server that runs already::

    .venv/bin/locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 Mix

Locust keeps times rounded to whole milliseconds, and counts them into its own figures that way.
Here each request's time is kept as it was measured, and the verdict is made of those.
"""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from gevent import get_hub
from locust import FastHttpUser, constant, events, task

from credit_risk.settings import Settings
from loadtests import applications, measurement, objectives, verdict

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment

JSON = {"Content-Type": "application/json"}
ROUTES = ("/predict", "/predict/batch", "/explain")
ALL_ROWS_DECIDED = b'"refused":0,'


class Recorder:
    """The raw times of one run."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._route = array("b")
        self._start = array("d")
        self._ms = array("d")
        self._failed = array("b")
        self._cpu = self._began = 0.0
        environment.events.test_start.add_listener(self.begin)
        environment.events.request.add_listener(self.add)
        environment.events.quitting.add_listener(self.finish)

    def begin(self, **_: object) -> None:
        """The run starts now."""
        self._cpu, self._began = time.process_time(), time.monotonic()

    def add(
        self,
        name: str,
        response_time: float,
        start_time: float,
        exception: Exception | None = None,
        **_: object,
    ) -> None:
        """One request is over; ``response_time`` is in ms, not yet rounded here."""
        self._route.append(ROUTES.index(name))
        self._start.append(start_time)
        self._ms.append(response_time)
        self._failed.append(exception is not None)

    def finish(self, **_: object) -> None:
        """Write the times down and make Locust's exit code the verdict."""
        options = self._environment.parsed_options
        if options is None or not options.samples:
            return
        elapsed = max(time.monotonic() - self._began, 1e-9)
        samples = measurement.Samples(
            ROUTES,
            np.array(self._route, dtype=np.int8),
            np.array(self._start, dtype=np.float64),
            np.array(self._ms, dtype=np.float64),
            np.array(self._failed, dtype=np.bool_),
            (time.process_time() - self._cpu) / elapsed,
        )
        samples.save(Path(options.samples))
        scenario = objectives.read(Path(options.objectives)).scenarios[options.scenario]
        findings = verdict.judge(scenario.targets, measurement.measure(samples))
        self._environment.process_exit_code = verdict.exit_code(findings)


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """Options of ours on Locust's command line."""
    settings = Settings()
    shipped = applications.folder(settings.packages_dir, settings.portfolio, "")
    parser.add_argument("--package", default=str(shipped), help="Package to draw applicants from.")
    parser.add_argument("--rows", type=int, default=20, help="Applications in each batch call.")
    parser.add_argument("--objectives", default=str(objectives.SHIPPED), help="Objectives file.")
    parser.add_argument("--scenario", default="mix", help="Scenario whose targets count.")
    parser.add_argument("--samples", default="", help="File for the raw times (.npz).")


@events.init.add_listener
def prepare(environment: Environment, **_: object) -> None:
    """Draw the applicants before the first user starts, and listen."""
    options = environment.parsed_options
    if options is None:
        return
    package = Path(options.package)
    Applicant.singles = applications.singles(package)
    Applicant.batches = applications.batches(package, options.rows)
    Recorder(environment)
    # Locust sets its clock next, by a time that gevent last read before all this.
    get_hub().loop.update_now()


class Applicant(FastHttpUser):
    """Sends one application after the other, without a pause.

    FastHttpUser: a request takes 0.16 ms of a core, and 0.54 ms with HttpUser, which one core would
    not be enough for at the rate that two workers answer.
    """

    abstract = True
    wait_time = constant(0)
    network_timeout = 30.0
    connection_timeout = 5.0
    singles: ClassVar[list[str]] = []
    batches: ClassVar[list[str]] = []
    _users: ClassVar[int] = 0

    def on_start(self) -> None:
        """Begin at another applicant than the other users."""
        Applicant._users += 1
        self._next = Applicant._users * 397

    def predict(self) -> None:
        """One application."""
        self._send("/predict", self.singles)

    def explain(self) -> None:
        """One application, with contributions."""
        self._send("/explain", self.singles)

    def batch(self) -> None:
        """Many applications; each row must be decided."""
        self._send("/predict/batch", self.batches, ALL_ROWS_DECIDED)

    def _send(self, route: str, bodies: list[str], expected: bytes = b"") -> None:
        self._next += 1
        body = bodies[self._next % len(bodies)]
        with self.client.post(route, data=body, headers=JSON, catch_response=True) as response:
            if response.ok and expected not in (response.content or b""):
                response.failure("a row was refused")


class Predict(Applicant):
    """Single applications only."""

    @task
    def single(self) -> None:
        """One application."""
        self.predict()


class Batch(Applicant):
    """Batches only."""

    @task
    def many(self) -> None:
        """Many applications."""
        self.batch()


class Explain(Applicant):
    """Explained decisions only."""

    @task
    def explained(self) -> None:
        """One application, with contributions."""
        self.explain()


class Mix(Applicant):
    """What a day looks like: mostly single decisions, some explained, now and then a batch."""

    @task(90)
    def single(self) -> None:
        """One application."""
        self.predict()

    @task(8)
    def explained(self) -> None:
        """One application, with contributions."""
        self.explain()

    @task(2)
    def many(self) -> None:
        """Many applications."""
        self.batch()
