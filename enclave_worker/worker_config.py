"""What the launcher tells the worker: one record, sent first over the control channel.

Everything here is measured (`measured` is the measurement's part `config`), except what measuring
itself finds out and where the worker happens to run.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from wire.canonical import encode
from wire.errors import ConfigError
from wire.ids import b64u, sha256_tag, unb64u

EPOCH_MIN_S = 4  # below it, rotation and attestation would overlap; only tests go this low
EPOCH_MAX_S = 86_400  # protocol §3.1: a key lives a day at most


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker's settings.

    Attributes:
        wid: opaque worker name.
        aud: deployment id; requests for another one are refused.
        model_name: the one model served.
        model_dir: the model's folder, which the sandbox lets the worker read.
        service_policy: the policy document whose digest requests must name.
        engine: EngineConfig members.
        trust: "software", "simulated", "vtpm" or "hardware", as the attester's kind implies;
            recorded in receipts.
        require_pq: offer no X25519 key.
        epoch_s: seconds an HPKE key is offered.
        slots: requests in the worker at once; credits given to the gateway.
        wrapper: how the process was isolated from outside, for the posture.
        namespaces: the launcher's own namespace ids, to compare with (sandbox.namespaces.probe).
        image: the measurement of everything staged; set by the launcher last.
        model_digests: sha256 tags by name: tree, weights, tokenizer, template, adapters/NAME.
        gpus: sha256 tags of the keys of the machine's GPUs, which every binding names.
    """

    wid: str
    aud: str
    model_name: str
    model_dir: str
    service_policy: bytes
    trust: str = "software"
    engine: dict[str, Any] = field(default_factory=dict)
    require_pq: bool = True
    epoch_s: int = 3600
    slots: int = 64
    wrapper: str = "none"
    namespaces: dict[str, str] = field(default_factory=dict)
    image: str = ""
    model_digests: dict[str, str] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what would only fail later, inside the sandbox, where nobody reads messages."""
        if not EPOCH_MIN_S <= self.epoch_s <= EPOCH_MAX_S:
            raise ConfigError(
                f"epoch_s: found {self.epoch_s}, expected {EPOCH_MIN_S} to {EPOCH_MAX_S} seconds"
            )
        if self.slots < 1:
            raise ConfigError(f"slots: found {self.slots}, expected at least 1")

    @property
    def policy(self) -> str:
        """Digest of the service policy, as requests and bindings name it."""
        return sha256_tag(self.service_policy)

    def measured(self) -> bytes:
        """Return the bytes of the settings that shape behaviour, for the measurement."""
        document = self.document()
        for outcome in (
            "image", "model_dir", "model_digests", "wrapper", "namespaces", "wid", "gpus"
        ):  # fmt: skip
            # Set by measuring or by the place the worker runs in, not choices about behaviour.
            del document[outcome]
        return encode(document)

    def document(self) -> dict[str, Any]:
        """Return the JSON form for the control channel."""
        return {**asdict(self), "service_policy": b64u(self.service_policy)}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> "WorkerConfig":
        """Read the JSON form; unknown members are refused."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(document) - known)
        if unknown:
            raise ConfigError(f"worker config: found unknown member {unknown[0]!r}")
        return cls(**{**document, "service_policy": unb64u(document["service_policy"])})
