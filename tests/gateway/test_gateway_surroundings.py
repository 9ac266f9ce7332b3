"""What the environment names for connections to vendors is checked before a gateway starts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from gateway.runtime import Gateway
from wire.errors import ConfigError

if TYPE_CHECKING:
    from simulators.deployment import Deployment


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "http://[::1", "ftp://127.0.0.1:1", "http://a..b:1"]
)
def test_a_proxy_that_cannot_be_used_is_a_sentence_for_the_operator(
    monkeypatch: pytest.MonkeyPatch, deployment: Deployment, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    config = dataclasses.replace(deployment.config, collateral_fetch=True)
    with pytest.raises(ConfigError, match="expected http://host:port"):
        Gateway.open(config)


def test_a_gateway_that_fetches_nothing_needs_no_proxy(
    monkeypatch: pytest.MonkeyPatch, deployment: Deployment
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://[::1")
    config = dataclasses.replace(deployment.config, collateral_fetch=False)
    Gateway.open(config).ledger.log.close()
