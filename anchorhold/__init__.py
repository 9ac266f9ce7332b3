"""Anchorhold for applications: sealed inference that is verified before a prompt leaves.

    from anchorhold import Client

    with Client("https://gateway.example", api_key, policy="policy.json") as client:
        result = client.chat([{"role": "user", "content": "Hello"}], "smollm2")
        print(result.text, result.trust, result.receipt.index)

Everything listed here keeps its name and meaning; nothing else is promised. This package must never
import a server part: it is what the SDK wheel installs. Spec: docs/spec/sealed-protocol.md.
"""

from __future__ import annotations

from attestation.policy import Policy, parse_policy
from client.api import Client
from client.async_api import AsyncClient
from client.async_stream import AsyncChatStream
from client.async_transport import AsyncSealedTransport
from client.events import Delta
from client.receipts import Receipt
from client.report import Verification
from client.results import ChatResult, SealedResponse
from client.session import Options
from client.stream import ChatStream
from client.transport import SealedTransport
from evidence.bundle import verify_bundle
from wire.errors import (
    AnchorholdError,
    AttestationError,
    BelowPolicyError,
    ConfigError,
    DirectoryError,
    ForkError,
    GatewayError,
    MalformedError,
    OpenError,
    PolicyError,
    PolicyExpiredError,
    ProtocolFailure,
    ReceiptError,
    RollbackError,
    SpliceError,
    StaleDirectoryError,
    StreamTruncated,
    UnavailableError,
    WorkerNotice,
)

__version__ = "0.1.0"

__all__ = [
    "AnchorholdError",
    "AsyncChatStream",
    "AsyncClient",
    "AsyncSealedTransport",
    "AttestationError",
    "BelowPolicyError",
    "ChatResult",
    "ChatStream",
    "Client",
    "ConfigError",
    "Delta",
    "DirectoryError",
    "ForkError",
    "GatewayError",
    "MalformedError",
    "OpenError",
    "Options",
    "Policy",
    "PolicyError",
    "PolicyExpiredError",
    "ProtocolFailure",
    "Receipt",
    "ReceiptError",
    "RollbackError",
    "SealedResponse",
    "SealedTransport",
    "SpliceError",
    "StaleDirectoryError",
    "StreamTruncated",
    "UnavailableError",
    "Verification",
    "WorkerNotice",
    "__version__",
    "parse_policy",
    "verify_bundle",
]
