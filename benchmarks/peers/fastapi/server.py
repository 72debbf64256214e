"""The usual service: FastAPI, a joblib file, and a DataFrame for each request."""

import os

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
pipeline = joblib.load(os.environ["MODEL"])


class Application(BaseModel):
    """What an applicant states."""

    person_age: int
    person_income: float
    person_emp_length: float | None
    loan_int_rate: float | None
    loan_amnt: float
    loan_percent_income: float
    loan_intent: str
    person_home_ownership: str
    loan_grade: str
    cb_person_default_on_file: str
    cb_person_cred_hist_length: int


class Prediction(BaseModel):
    """What is answered for one application."""

    probability_of_default: float


class Batch(BaseModel):
    """Many applications."""

    applications: list[Application]


class Predictions(BaseModel):
    """One prediction for each application, in order."""

    results: list[Prediction]


@app.post("/predict")
def predict(application: Application) -> Prediction:
    """Score one application."""
    frame = pd.DataFrame([application.model_dump()])
    return Prediction(probability_of_default=pipeline.predict_proba(frame)[0, 1])


@app.post("/predict/batch")
def predict_batch(batch: Batch) -> Predictions:
    """Score many applications."""
    frame = pd.DataFrame([application.model_dump() for application in batch.applications])
    return Predictions(
        results=[
            Prediction(probability_of_default=probability)
            for probability in pipeline.predict_proba(frame)[:, 1]
        ]
    )
