"""Credit-risk decisions: probability of default, policy, reasons and evidence.

The modules of this package that lie beside this file are the core, and so are those of ``audit``.
They know applications, models, policies, reasons and records; they know no HTTP, BentoML,
Prometheus or OpenTelemetry, and no training library. ``training`` makes model packages,
``serving`` puts the core behind HTTP, ``cli`` is the command line.
"""

__version__ = "0.1.0"
