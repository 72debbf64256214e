"""The core behind HTTP: BentoML's store and service, the ASGI app, problems, OpenAPI.

``direct_service``, ``runtime`` and ``store`` are the only modules that import BentoML.
"""
