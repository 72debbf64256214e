"""This server with a challenger that hangs or crashes, to measure what one costs.

Only for the benchmark: everything else is put together as ``service.py`` does it. The process that
asks the challenger answers golden records as ever; then, at the first decision, it never comes to
an end, busy all the time, or ends at once. What the challenger does is in ``BENCHMARK_CHALLENGER``.
"""

from __future__ import annotations

from monitoring import shadow
from service import CreditRiskServer

PROGRAM = """
import os, sys
from monitoring import follower

def hang():
    while True:
        pass

WHAT = {"hanging": hang, "crashing": os.abort}[os.environ["BENCHMARK_CHALLENGER"]]

def answers(package, applications):
    WHAT()

follower._answers = answers
follower.main(int(sys.argv[1]))
"""

shadow._PROGRAM = PROGRAM  # noqa: SLF001 - the product has no such switch

__all__ = ["CreditRiskServer"]
