"""A complete one-machine deployment in one folder: keys, credentials, policies, gateway settings.

What a release pipeline, a tenant's administrator and an operator prepare separately in production
is written here by one process for the demo, the benchmarks and the end-to-end tests. Everything is
random per deployment; secret files are readable by their owner only.
"""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from evidence.note import make_vkey
from tenancy.key_table import open_or_create, save_table
from wire.ids import b64u, sha256_tag

#: The policy and the credential outlive any demo, not a forgotten machine.
POLICY_LIFE_S = 30 * 86_400
KEY_LIFE_S = 7 * 86_400
TENANT = "demo"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where everything of one deployment lives.

    Attributes:
        root: the folder; mode 0700.
        aud: deployment id.
        api_key: the demo tenant's credential, also in `key.txt`.
        service_policy: the policy document the workers load.
    """

    root: Path
    aud: str
    api_key: str
    service_policy: bytes

    @property
    def gateway_config(self) -> Path:
        """The gateway's settings file."""
        return self.root / "gateway.toml"

    @property
    def tenant_policy(self) -> Path:
        """The tenant's policy file."""
        return self.root / "policy.json"

    @property
    def key_file(self) -> Path:
        """The tenant's credential file."""
        return self.root / "key.txt"

    @property
    def worker_socket(self) -> Path:
        """The gateway's socket for workers."""
        return self.root / "gateway" / "worker.sock"

    def write_policy(
        self, *, accept: Sequence[dict[str, Any]], models: Sequence[str], now: int
    ) -> None:
        """Write the policy that both the tenant and the gateway's admission use.

        Args:
            accept: rules of the policy's `accept` list: kinds, trust anchors, measurements.
            models: names the tenant may ask for.
            now: Unix seconds.
        """
        kinds = {rule["kind"] for rule in accept}
        document = {
            "v": 1, "id": f"{self.aud}-policy", "seq": 1,
            "not_before": now - 120, "expires": now + POLICY_LIFE_S,
            "aud": self.aud, "min_version": 1, "require_pq": True, "k": 3, "min_workers": 1,
            "allow_software": "software" in kinds, "allow_simulated": "tpm2" in kinds,
            "accept": list(accept), "models": [{"name": name} for name in models],
            "service_policies": [sha256_tag(self.service_policy)],
            "directory": {"keys": [self._public("directory")]},
            "log": {"origin": f"{self.aud}/log", "vkeys": [self._vkey()]},
            "deny": {"bh": [], "measurements": [], "kids": []},
            "freshness": {
                "beacon_max_age_s": 600, "directory_max_age_s": 600, "require_beacon": True,
            },
        }  # fmt: skip
        text = json.dumps(document, indent=1).encode()
        self.tenant_policy.write_bytes(text)
        (self.root / "admission.json").write_bytes(text)

    def write_gateway(self, *, port: int, **settings: str | int | float) -> None:
        """Write the gateway's settings; `settings` are further keys of its file."""
        defaults: dict[str, str | int | float] = {
            "aud": self.aud, "state_dir": "gateway", "admission_policy_file": "admission.json",
            "port": port, "worker_socket": "gateway/worker.sock",
            "log_key_file": "log.key", "directory_key_file": "directory.key",
            "key_table_file": "keys.json", "pepper_file": "pepper",
        }  # fmt: skip
        values = {**defaults, **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.gateway_config.write_text("\n".join(lines) + "\n")

    def _key(self, name: str) -> Ed25519PrivateKey:
        key = load_pem_private_key((self.root / f"{name}.key").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    def _public(self, name: str) -> dict[str, str]:
        raw = self._key(name).public_key().public_bytes_raw()
        return {"kid": "dir-1", "alg": "ed25519", "pk": b64u(raw)}

    def _vkey(self) -> str:
        return make_vkey(f"{self.aud}/log", self._key("log").public_key())


def create(root: Path, *, aud: str, now: int) -> Deployment:
    """Make a new deployment in `root` (created, must be empty)."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "gateway").mkdir(mode=0o700)
    for name in ("log", "directory", "software-root"):
        _write_secret(root / f"{name}.key", _pem(Ed25519PrivateKey.generate()))
    table = open_or_create(root / "keys.json", secrets.token_bytes, root / "pepper")
    table, text, _ = table.create(TENANT, ("infer",), "demo", now, KEY_LIFE_S, secrets.token_bytes)
    save_table(table, root / "keys.json")
    _write_secret(root / "key.txt", text.encode() + b"\n")
    policy = json.dumps({"v": 1, "id": f"{aud}-service", "retention": "none"}).encode()
    return Deployment(root=root, aud=aud, api_key=text, service_policy=policy)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_secret(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
