"""The core behind HTTP: BentoML's store and service, the ASGI app, problems, OpenAPI.

``bentoml_service`` and ``store`` are the only modules that import BentoML.
"""
