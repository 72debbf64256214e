"""An endpoint of BentoML as it ships: a model in, a model out, and no work between."""

import bentoml
from pydantic import BaseModel


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
    """What is answered."""

    probability_of_default: float
    decision: str


@bentoml.service(workers=1)
class Empty:
    """A service with one endpoint."""

    @bentoml.api
    def predict(self, application: Application, /) -> Prediction:
        """Answer without looking."""
        del application
        return Prediction(probability_of_default=0.5, decision="REVIEW")
