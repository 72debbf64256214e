"""What seals personal data in tests; a module of its own, because processes of theirs import it."""

from __future__ import annotations

import base64

from credit_risk.audit.keys import Sealing

_KEY = bytes(range(32))
KEY = base64.b64encode(_KEY).decode()
"""As the settings take it."""
SEALING = Sealing([_KEY])
