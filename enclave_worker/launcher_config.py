"""Settings of one launcher, from a TOML file or from code; checked before anything is started."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from attestation.collateral.whole_file import read_whole
from attestation.toml_table import SETTINGS_MAX, parse_settings
from wire.errors import ConfigError, MalformedError
from wire.excerpt import NUMBER_BITS_MAX, json_value, shown
from wire.ids import is_wid
from wire.limits import NAME_MAX

Trust = Literal["software", "simulated", "vtpm", "hardware"]
Gpus = Literal["none", "required"]
TRUSTS: Final[tuple[Trust, ...]] = ("software", "simulated", "vtpm", "hardware")
GPUS: Final[tuple[Gpus, ...]] = ("none", "required")
AUTO: Final = "auto"
TPM_QUOTE: Final = "tpm2-quote"  # the one kind of trust "vtpm": a TPM that names no CPU
TPM_AK: Final = "0x81000003"
_HANDLE = re.compile(r"0x81[0-9a-fA-F]{6}")  # of persistent objects
_INDEX = re.compile(r"0x01[0-9a-fA-F]{6}")
# A service policy is a page of JSON, and it travels in every start message.
POLICY_MAX = 65_536
# The head of a streamed answer names the model and must fit one 256-byte frame.
MODEL_MAX = 96
# sun_path of a Unix socket address, less its terminating zero.
SOCKET_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class LauncherConfig:
    """What the host's operator decides about one worker.

    Attributes:
        model_dir: a Hugging Face folder (config.json, *.safetensors, tokenizer.json).
        model_name: the name clients ask for.
        aud: deployment id.
        gateway_socket: the gateway's worker socket.
        state_dir: for the staged root, a generated software root, a software TPM's state.
        trust: "software" (a development root signs), "simulated" (software TPM quotes), "vtpm"
            (this machine's TPM quotes, and names no CPU) or "hardware" (its processor signs).
        attester: with trust "hardware", the evidence kind this machine must make, or "auto" for
            the one it can make; "tpm2-quote" with trust "vtpm", and only there. What is not there
            is an error, never something weaker.
        gpus: "required": every GPU here attests behind the same binding, and nothing starts
            without one; with trust "hardware" only, because nothing weaker can name them. "none":
            they are not looked at and not used.
        software_root: Ed25519 private key, PEM, made if absent; None: one in state_dir.
        tpm_ca: folder of the CA that certifies software TPMs, made if absent; workers that share
            it share a trust anchor. None: one in state_dir.
        tpm_ak: with trust "vtpm", the persistent handle of the TPM's attestation key.
        tpm_ak_cert: NV index of that key's certificate; "auto" for the first that is known to
            hold one and does, "" for none.
        tpm_ak_chain: file of the certificates above it, DER or PEM; None for none.
        wid: opaque worker name, of the form that `wire.ids.is_wid` knows.
        service_policy: policy document whose digest requests must name.
        engine: EngineConfig members.
        require_pq: offer post-quantum keys only.
        epoch_s: seconds a key is offered.
        slots: requests in the worker at once.
        restart: start a new worker (new boot, new keys) when one dies unasked.
        log: file that receives the worker's stderr; None leaves it on the launcher's own.
    """

    model_dir: Path
    model_name: str
    aud: str
    gateway_socket: Path
    state_dir: Path
    service_policy: bytes
    trust: Trust = "software"
    attester: str = AUTO
    gpus: Gpus = "none"
    software_root: Path | None = None
    tpm_ca: Path | None = None
    tpm_ak: str = TPM_AK
    tpm_ak_cert: str = AUTO
    tpm_ak_chain: Path | None = None
    wid: str = "worker-1"
    engine: dict[str, Any] = field(default_factory=dict)
    require_pq: bool = True
    epoch_s: int = 3600
    slots: int = 64
    restart: bool = True
    log: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values that would fail later in a place that cannot explain itself."""
        if self.trust not in TRUSTS:
            raise ConfigError(f"trust: found {shown(self.trust)}, expected {' or '.join(TRUSTS)}")
        self._check_attester()
        if self.gpus not in GPUS:
            raise ConfigError(f"gpus: found {shown(self.gpus)}, expected {' or '.join(GPUS)}")
        if self.gpus != "none" and self.trust != "hardware":
            raise ConfigError(
                f'gpus: found "{self.gpus}" with trust {self.trust}, expected trust = "hardware"'
            )
        if not is_wid(self.wid):
            raise ConfigError(
                f"wid: found {shown(self.wid)} of {len(self.wid)} characters, expected 1 to 64 "
                "ASCII letters, digits, '-', '_', '.', and not dots alone"
            )
        for name, most in (("model_name", MODEL_MAX), ("aud", NAME_MAX)):
            value = getattr(self, name)
            printable = value.isascii() and value.isprintable()
            if not printable or not 1 <= len(value) <= most:
                raise ConfigError(
                    f"{name}: found {shown(value)} of {len(value)} characters, "
                    f"expected 1 to {most} printable ASCII ones"
                )
        if len(str(self.gateway_socket).encode()) > SOCKET_PATH_MAX:
            raise ConfigError(
                f"gateway_socket: found {len(str(self.gateway_socket).encode())} bytes, "
                f"expected a path of at most {SOCKET_PATH_MAX}",
                hint="Put the socket in a folder with a shorter path.",
            )
        if not 1 <= len(self.service_policy) <= POLICY_MAX:
            raise ConfigError(
                f"service_policy: found {len(self.service_policy)} bytes, "
                f"expected 1 to {POLICY_MAX}"
            )

    def _check_attester(self) -> None:
        """A TPM is no processor: neither passes for the other, nor is chosen unnamed."""
        alone = self.attester == TPM_QUOTE
        wanted = "vtpm" if alone else "hardware"
        if self.attester != AUTO and self.trust != wanted:
            raise ConfigError(
                f"attester: found {shown(self.attester)} with trust {self.trust}, "
                f'expected trust = "{wanted}"'
            )
        if self.trust == "vtpm" and not alone:
            raise ConfigError(
                f'attester: found {shown(self.attester)} with trust vtpm, expected "{TPM_QUOTE}"',
                hint="A TPM alone names no CPU, so it is used only where it is named.",
            )
        if not alone and (self.tpm_ak, self.tpm_ak_cert, self.tpm_ak_chain) != (TPM_AK, AUTO, None):
            raise ConfigError(
                f"tpm_ak, tpm_ak_cert, tpm_ak_chain: found one of them with attester "
                f'{shown(self.attester)}, expected attester = "{TPM_QUOTE}"'
            )
        if _HANDLE.fullmatch(self.tpm_ak) is None:
            raise ConfigError(
                f"tpm_ak: found {shown(self.tpm_ak)}, expected a persistent handle such as {TPM_AK}"
            )
        if self.tpm_ak_cert not in ("", AUTO) and _INDEX.fullmatch(self.tpm_ak_cert) is None:
            raise ConfigError(
                f"tpm_ak_cert: found {shown(self.tpm_ak_cert)}, expected {AUTO}, nothing, or an NV "
                "index such as 0x01c10000"
            )


def read_config(path: Path) -> LauncherConfig:
    """Read a TOML file; relative paths in it are relative to the file.

    `service_policy` names the policy file; every other key is as in LauncherConfig, and `engine` is
    a table. Unknown keys are refused by name.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type.
    """
    return config_of(path, read_settings(path))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a TOML file's keys and values; raises ConfigError."""
    try:
        return parse_settings(read_whole(path, SETTINGS_MAX))
    except OSError as error:
        raise ConfigError(
            f"worker configuration: cannot read {path}: {error.strerror}", hint=_FILE_HINT
        ) from None
    except MalformedError as error:
        raise ConfigError(
            f"worker configuration {path}: {error.message}", hint=_FILE_HINT
        ) from None


def config_of(path: Path, document: dict[str, Any]) -> LauncherConfig:
    """Check one worker's keys and values, found in the file at `path`; raises ConfigError."""
    known = {item.name: item for item in fields(LauncherConfig)}
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ConfigError(
            f"worker configuration {path}: found unknown key {shown(unknown[0])}, "
            f"expected some of {', '.join(sorted(known))}"
        )
    values = {key: _typed(path, key, value) for key, value in document.items()}
    required = ("model_dir", "model_name", "aud", "gateway_socket", "state_dir", "service_policy")
    missing = [key for key in required if key not in values]
    if missing:
        raise ConfigError(
            f"worker configuration {path}: key {missing[0]!r} is missing, "
            f"expected all of {', '.join(required)}"
        )
    return LauncherConfig(**values)


_FILE_HINT = "Name an existing TOML file; docs/operate/worker.md has a sample."
_KINDS: dict[type, str] = {
    str: "text",
    int: "an integer",
    float: "a decimal",
    bool: "true or false",
    dict: "a table",
    list: "an array",
}
_PATHS = (
    "model_dir",
    "gateway_socket",
    "state_dir",
    "software_root",
    "tpm_ca",
    "tpm_ak_chain",
    "log",
)
_INTEGERS = ("epoch_s", "slots")
_FLAGS = ("require_pq", "restart")


def _typed(path: Path, key: str, value: Any) -> Any:
    """Check one value's type and resolve paths against the file's folder."""
    expected: type = str
    if key in _INTEGERS:
        expected = int
    elif key in _FLAGS:
        expected = bool
    elif key == "engine":
        expected = dict
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(
            f"worker configuration {path}: {key}: found {_KINDS.get(type(value), 'a date')}, "
            f"expected {_KINDS[expected]}"
        )
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
        raise ConfigError(f"worker configuration {path}: {key}: found {json_value(value)}")
    if key == "service_policy":
        return _policy(_path(path, key, str(value)))
    return _path(path, key, str(value)).resolve() if key in _PATHS else value


def _path(path: Path, key: str, value: str) -> Path:
    if not value or not value.isprintable():
        raise ConfigError(
            f"worker configuration {path}: {key}: found {shown(value)}, "
            "expected a path in printable characters"
        )
    return path.parent / value


def _policy(path: Path) -> bytes:
    try:
        return read_whole(path, POLICY_MAX)
    except OSError as error:
        raise ConfigError(
            f"service_policy: cannot read {path}: {error.strerror}",
            hint="Name the policy document the workers load.",
        ) from None
