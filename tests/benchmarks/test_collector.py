"""The collector that traces are sent to."""

from __future__ import annotations

import httpx
import pytest

from benchmarks import collector


def test_it_takes_whatever_is_posted_and_counts_it() -> None:
    """Over one connection too; afterwards nobody listens."""
    with collector.collecting() as taking, httpx.Client(base_url=taking.url) as client:
        statuses = [client.post("/v1/traces", content=body).status_code for body in (b"a", b"")]
        assert taking.received == 2

    assert statuses == [200, 200]
    with pytest.raises(httpx.ConnectError):
        httpx.post(taking.url)
