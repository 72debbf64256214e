"""A LitServe service, as its documentation has it."""

import os
from typing import Any

import joblib
import litserve
import pandas as pd


class CreditAPI(litserve.LitAPI):
    """Scores one application."""

    def setup(self, device: str) -> None:
        """Load the pipeline."""
        del device
        self.pipeline = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, Any]) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame([request])

    def predict(self, frame: pd.DataFrame) -> float:
        """Its probability of default."""
        return float(self.pipeline.predict_proba(frame)[0, 1])

    def encode_response(self, probability: float) -> dict[str, float]:
        """What is answered."""
        return {"probability_of_default": probability}


if __name__ == "__main__":
    server = litserve.LitServer(CreditAPI(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
