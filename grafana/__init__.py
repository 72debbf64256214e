"""Dashboards as code: ``python -m grafana`` writes ``grafana/dashboards``, ``--check`` compares."""
