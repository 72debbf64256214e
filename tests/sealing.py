"""What seals personal data in tests; a module of its own, because processes of theirs import it."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk.audit.keys import Sealing

_KEY = bytes(range(32))
KEY = base64.b64encode(_KEY).decode()
"""As the settings take it."""
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""What signs checkpoints."""
SEALING = Sealing([_KEY])
