"""What a command prints: results, progress and errors, each where it belongs."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(soft_wrap=True)
wide = Console(soft_wrap=True, width=10_000)
"""For what holds ids, digests or paths: one that is cropped to a terminal's width finds nothing."""
err = Console(stderr=True, soft_wrap=True)

STILL_THERE = (
    "the database's own files may hold old versions of these rows for a while, and backups until "
    "they go: see docs/operation.md, Personal data"
)
_PASSWORDS = re.compile(r"(?<=:)[^/].*(?=@)|(?<=password=)[^&]*")


def without_password(url: str) -> str:
    """The URL of a database as it may be shown."""
    return _PASSWORDS.sub("***", url)


@contextlib.contextmanager
def steps_done() -> Iterator[Callable[[str], None]]:
    """A line per step on standard error, for people with a spinner and the time it took."""
    if not err.is_terminal:
        yield print_progress
        return
    columns = (
        SpinnerColumn(finished_text="done"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as progress:
        running: list[TaskID] = []

        def step(description: str) -> None:
            finish()
            running.append(progress.add_task(description, total=1))

        def finish() -> None:
            if running:
                progress.update(running[-1], completed=1)

        yield step
        finish()


@contextlib.contextmanager
def rows_done(
    doing: str = "scoring", things: str = "rows"
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of the rows done, on standard error; without their number it only counts them."""
    columns = (
        TextColumn(doing),
        BarColumn(),
        TextColumn(f"{{task.completed:,}} {things}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err)
    task = progress.add_task(doing, total=None)
    with contextlib.ExitStack() as shown:

        def update(done: int, total: int | None) -> None:
            # Not before there is something to show: what is refused is told in one line.
            if not progress.live.is_started:
                shown.enter_context(progress)
            progress.update(task, completed=done, total=total)

        yield update


def print_json(value: object) -> None:
    """A result as JSON."""
    print_line(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(text: str) -> None:
    """A line as it is: never cut, folded or coloured."""
    sys.stdout.write(f"{text}\n")


def print_progress(text: str) -> None:
    """A line beside the result."""
    sys.stderr.write(f"{text}\n")


def print_error(text: str) -> None:
    """Why a command ends, in one line."""
    print_progress(f"error: {' '.join(text.split())}")
