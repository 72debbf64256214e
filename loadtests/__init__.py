"""Load tests with a verdict: ``python -m loadtests``, or ``make loadtest``."""
