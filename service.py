"""The BentoML service; ``credit-risk serve`` runs it with the settings in force."""

from __future__ import annotations

import bentoml

from credit_risk import kernels
from credit_risk.serving.direct_service import DirectService
from credit_risk.settings import Settings
from monitoring import logs

settings = Settings()
kernels.keep_compiled(settings.state_dir)
logs.configure(settings.log_level)
logs.capture()


@bentoml.service(
    name="credit-risk-server",
    service_class=DirectService,
    workers=settings.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class CreditRiskServer:
    """Credit-risk decisions for one portfolio, explained and on record."""

    def __init__(self) -> None:
        # Here and not above: only workers need it, and the process that starts them starts sooner.
        from credit_risk.serving.runtime import Runtime  # noqa: PLC0415

        self.runtime = Runtime(settings)
        self.server = self.runtime.server
        self.runtime.start()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Finish what is waiting."""
        self.runtime.close()
