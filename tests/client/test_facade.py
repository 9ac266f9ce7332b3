"""The names users write, pinned, and what importing them must not drag in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anchorhold

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "AnchorholdError", "AsyncChatStream", "AsyncClient", "AsyncSealedTransport", "AttestationError",
    "BelowPolicyError", "ChatResult", "ChatStream", "Client", "ConfigError", "Delta",
    "DirectoryError", "ForkError", "GatewayError", "MalformedError", "OpenError", "Options",
    "Policy", "PolicyError", "PolicyExpiredError", "ProtocolFailure", "Receipt", "ReceiptError",
    "RollbackError", "SealedResponse", "SealedTransport", "SpliceError", "StaleDirectoryError",
    "StreamTruncated", "UnavailableError", "Verification", "WorkerNotice", "__version__",
    "parse_policy", "verify_bundle",
]  # fmt: skip
HEAVY = {
    "torch", "fastapi", "starlette", "uvicorn", "apsw", "opentelemetry", "tokenizers", "numpy",
    "gateway", "enclave_worker", "tenancy", "ops",
}  # fmt: skip


def test_the_surface_is_exactly_this() -> None:
    assert sorted(anchorhold.__all__) == sorted(NAMES)
    assert all(hasattr(anchorhold, name) for name in NAMES)


def test_importing_the_facade_brings_nothing_heavy() -> None:
    script = (
        "import sys, anchorhold\n"
        f"bad = {{name.split('.')[0] for name in sys.modules}} & {HEAVY!r}\n"
        "sys.exit(f'found {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tenants_commands_start_without_the_servers_modules() -> None:
    script = (
        "import sys\nfrom ops import cli\n"
        "sys.argv = ['anchorhold', 'policy', 'check', '/nonexistent']\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert stop.code == 4\n"
        f"bad = {{name.split('.')[0] for name in sys.modules}} & {HEAVY - {'ops'}!r}\n"
        "sys.exit(f'found {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
