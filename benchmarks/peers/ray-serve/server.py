"""A Ray Serve deployment of one replica, as its documentation has it."""

import os

import joblib
import pandas as pd
from ray import serve
from starlette.requests import Request


# The default is 5; with more connections than that, the router's pauses are all one measures.
@serve.deployment(max_ongoing_requests=100)
class Credit:
    """Scores one application."""

    def __init__(self, path: str) -> None:
        self.pipeline = joblib.load(path)

    async def __call__(self, request: Request) -> dict[str, float]:
        """Its probability of default."""
        frame = pd.DataFrame([await request.json()])
        return {"probability_of_default": float(self.pipeline.predict_proba(frame)[0, 1])}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Credit.bind(os.environ["MODEL"]), blocking=True)
