"""The two kinds of page for people: the OpenAPI page and what a problem type means.

Swagger UI's files come with BentoML, so the page needs no other host and no copy of ours.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from credit_risk.serving.problems import Kind

_STYLE = """
body { margin: 0; font-family: system-ui, sans-serif; }
main { max-width: 42rem; margin: 3rem auto; padding: 0 1rem; line-height: 1.5; }
main code { background: #8883; padding: 0.1rem 0.3rem; border-radius: 3px; }
.swagger-ui .info { margin: 1.5rem 0; }
/* There is one server, the one that is asked, and no answer has links. */
.swagger-ui .operation-servers, .swagger-ui .response-col_links { display: none; }
"""


def assets() -> Path:
    """Folder of Swagger UI's files."""
    return Path(str(files("bentoml"))) / "_internal" / "server" / "static_content"


def docs(title: str) -> str:
    """The OpenAPI page."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Credit-risk decisions: {escape(title)}</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<style>{_STYLE}</style>
</head>
<body>
<div id="page"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
}});
</script>
</body>
</html>
"""


def problem(kind: Kind) -> str:
    """What a problem type means, and what to do about it."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(kind.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(kind.title)}</h1>
<p>Status <code>{kind.status}</code>, type <code>{escape(kind.uri)}</code></p>
<p>{escape(kind.advice)}</p>
</main>
</body>
</html>
"""
