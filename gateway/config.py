"""The gateway's settings: one TOML file, read once, unknown keys refused.

Secrets are files named here, never values. Relative paths are taken from the file's own folder.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestation.collateral.whole_file import read_whole
from attestation.formats.jose import KID_MAX
from attestation.toml_table import SETTINGS_MAX, parse_settings
from tenancy.queue import GLOBAL_REQUESTS_MAX, TENANT_BYTES_MAX, TENANT_REQUESTS_MAX
from wire.errors import ConfigError, MalformedError
from wire.excerpt import NUMBER_BITS_MAX, json_value, listed, shown
from wire.ids import is_sha256_tag, unb64u
from wire.limits import ENVELOPE_MAX

#: An audience is a short name; it is in every request header and every log entry.
AUD_MAX = 128
#: Any version control's name of a commit; Git's have 40 or 64.
COMMIT_MAX = 128
URL_MAX = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Settings of one gateway process. Sizes are bytes, times are seconds.

    Raises:
        ConfigError: a value is outside its range.
    """

    aud: str  # deployment id; envelopes and bindings for another one are refused
    state_dir: Path  # folder of everything the gateway keeps
    admission_policy_file: Path  # policy (JSON) a worker's evidence must satisfy; may change
    host: str = "127.0.0.1"  # address to listen on
    port: int = 8443  # TCP port; 0 lets the system choose
    tls_cert_file: Path | None = None  # PEM certificate chain; TLS when set
    tls_key_file: Path | None = None  # PEM private key of the certificate
    worker_socket: Path | None = None  # Unix socket for workers; `worker.sock` in state_dir
    key_table_file: Path | None = None  # API key table; `keys.json` in state_dir
    pepper_file: Path | None = None  # pepper of the key table; beside the table
    log_file: Path | None = None  # evidence log (SQLite); `log.db` in state_dir
    log_origin: str | None = None  # name of the log in checkpoints; `<aud>/log`
    log_anchor_file: Path | None = None  # second copy of the log's head, best on another volume
    log_key_file: Path | None = None  # log signing key (PEM); `log.key` in state_dir
    directory_key_file: Path | None = None  # signing key (PEM); `directory.key` in state_dir
    directory_kid: str = "dir-1"  # name of the directory key in documents and policies
    directory_life_s: int = 600  # how long a snapshot may be used; at most 600
    directory_refresh_s: int = 180  # a new snapshot at least this often
    policy_key: str | None = None  # Ed25519 key, base64url; the policy must be signed with it
    collateral_dir: Path | None = None  # cache of vendors' statements; `collateral` in state_dir
    collateral_fetch: bool = True  # fetch what is missing; false uses the cache and bundles alone
    collateral_services_file: Path | None = None  # TOML: where the vendors' services are
    collateral_retry_s: float = 15.0  # what a vendor did not give is not asked for again so soon
    collateral_unknown_per_minute: int = 60  # pieces never had, of a vendor, for new workers
    reappraise_s: float = 60.0  # admitted workers are judged again this often
    result_key_file: Path | None = None  # signs result tokens (PEM); `result.key` in state_dir
    result_kid: str = "result-1"  # name of the result key in tokens and in its key set
    result_life_s: int = 300  # how long a result token may be used
    source_url: str | None = None  # https URL of the workers' source, for `aci/1` reports
    source_commit: str | None = None  # the commit their image was built from
    source_image: str | None = None  # digest of their published image, a sha256: tag
    deny_file: Path | None = None  # binding hashes to refuse, one base64url text a line
    spool_dir: Path | None = None  # folder for ciphertext; `spool` in state_dir
    spool_memory_bytes: int = 65_536  # of one request kept in memory; more goes to a file
    spool_bytes_max: int = 1024 * 1024 * 1024  # ciphertext kept for all tenants together
    request_bytes_max: int = ENVELOPE_MAX  # largest accepted envelope
    response_buffer_bytes: int = 4 * 1024 * 1024  # kept for a slow reader, then the stream is cut
    tenant_requests_max: int = TENANT_REQUESTS_MAX  # requests one tenant may have waiting
    tenant_bytes_max: int = TENANT_BYTES_MAX  # ciphertext one tenant may have waiting
    queue_requests_max: int = GLOBAL_REQUESTS_MAX  # requests waiting in all
    header_deadline_s: float = 10.0  # time to send HTTP headers, and an envelope's header
    idle_deadline_s: float = 60.0  # longest pause within a request body
    lease_s: int = 10  # a worker silent for longer is lost
    hello_deadline_s: float = 60.0  # time for a worker to answer a challenge
    settle_s: float = 10.0  # after a start: how long to wait for workers to come back
    shutdown_s: int = 5  # when stopping: time for requests in flight to end
    telemetry_exporter: str = "none"  # `none`, `file` or `otlp`
    telemetry_file: Path | None = None  # JSON lines of spans and metrics, for `file`
    telemetry_endpoint: str | None = None  # base URL of the collector, for `otlp`
    telemetry_interval_s: float = 10.0  # how often metrics are exported

    def __post_init__(self) -> None:
        """Check ranges and combinations once, here, so that nothing else has to."""
        _check(self)

    def path(self, name: str, default: str) -> Path:
        """The file of setting `name`, or `default` in the state folder."""
        chosen = getattr(self, name)
        return chosen if isinstance(chosen, Path) else self.state_dir / default

    def policy_keys(self) -> tuple[bytes, ...]:
        """The key that must have signed the admission policy; none takes an unsigned one."""
        if self.policy_key is None:
            return ()
        try:
            return (unb64u(self.policy_key, 32),)
        except MalformedError:
            raise ConfigError(
                f"policy_key: found {shown(self.policy_key)}, expected the 43 base64url "
                "characters of an Ed25519 public key",
                hint="`anchorhold policy keygen` prints it",
            ) from None

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.log_origin or f"{self.aud}/log"


#: Inclusive ranges of the numeric settings.
RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "directory_life_s": (30, 600),  # clients refuse longer lives
    "directory_refresh_s": (1, 300),
    "spool_memory_bytes": (0, 64 * 1024 * 1024),
    "spool_bytes_max": (1024 * 1024, 2**40),
    "request_bytes_max": (4096, 80 * 1024 * 1024 - 64),  # one message of the worker link
    "response_buffer_bytes": (65_536, 256 * 1024 * 1024),
    "tenant_requests_max": (1, 1_000_000),
    "tenant_bytes_max": (4096, 2**40),
    "queue_requests_max": (1, 1_000_000),
    "header_deadline_s": (0.05, 120),
    "idle_deadline_s": (0.05, 600),
    "lease_s": (1, 60),
    "collateral_retry_s": (0, 600),
    "collateral_unknown_per_minute": (1, 6000),
    "reappraise_s": (0.05, 3600),
    "result_life_s": (1, 3600),
    "hello_deadline_s": (0.1, 600),
    "settle_s": (0, 120),
    "shutdown_s": (0, 600),
    "telemetry_interval_s": (0.05, 3600),
}
EXPORTERS = ("none", "file", "otlp")


def _check(config: GatewayConfig) -> None:
    for name, (low, high) in RANGES.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name}: expected {low:g} to {high:g}, found {json_value(value)}")
    printable = config.aud.isascii() and config.aud.isprintable()
    if not printable or not 1 <= len(config.aud) <= AUD_MAX:
        raise ConfigError(
            f"aud: found {len(config.aud)} characters, {shown(config.aud)},"
            f" expected 1 to {AUD_MAX} printable ASCII ones"
        )
    config.policy_keys()
    _check_stated(config)
    if config.directory_refresh_s >= config.directory_life_s:
        raise ConfigError(
            f"directory_refresh_s: found {config.directory_refresh_s},"
            f" expected less than directory_life_s, {config.directory_life_s}"
        )
    if config.telemetry_exporter not in EXPORTERS:
        raise ConfigError(
            f"telemetry_exporter: expected one of {', '.join(EXPORTERS)},"
            f" found {shown(config.telemetry_exporter)}"
        )
    if config.telemetry_exporter == "file" and config.telemetry_file is None:
        raise ConfigError(
            "telemetry_file: found none, expected a file since telemetry_exporter is `file`"
        )
    if config.telemetry_exporter == "otlp" and config.telemetry_endpoint is None:
        raise ConfigError(
            "telemetry_endpoint: found none, expected a URL since telemetry_exporter is `otlp`"
        )
    if (config.tls_cert_file is None) != (config.tls_key_file is None):
        found = "tls_key_file" if config.tls_cert_file is None else "tls_cert_file"
        raise ConfigError(
            f"tls_cert_file and tls_key_file: found only {found}, expected both or neither"
        )


def _check_stated(config: GatewayConfig) -> None:
    """What attestation answers state as it is given here: everybody reads it."""
    if not (_is_word(config.result_kid) and len(config.result_kid) <= KID_MAX):
        raise ConfigError(
            f"result_kid: found {shown(config.result_kid)}, expected 1 to {KID_MAX} printable ASCII"
            " characters, no space among them"
        )
    image, commit, url = config.source_image, config.source_commit, config.source_url
    if image is not None and not is_sha256_tag(image):
        raise ConfigError(
            f"source_image: found {shown(image)}, expected sha256: and 64 lower-case hex digits"
        )
    if commit is not None and not (_is_word(commit) and len(commit) <= COMMIT_MAX):
        raise ConfigError(
            f"source_commit: found {shown(commit)}, expected 1 to {COMMIT_MAX} printable ASCII"
            " characters, no space among them"
        )
    if url is not None and not (_is_word(url) and len(url) <= URL_MAX and _is_public(url)):
        raise ConfigError(
            f"source_url: found {shown(url)}, expected https:// and a host, without a user's name"
        )


def _is_word(text: str) -> bool:
    return text != "" and text.isascii() and text.isprintable() and " " not in text


def _is_public(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # a bracket that does not close
        return False


def _convert(name: str, annotation: Any, value: object, folder: Path) -> object:
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    kinds = [option for option in options if option is not type(None)]
    kind = kinds[0]
    if kind is Path and isinstance(value, str) and value:
        return _path(name, value, folder)
    if kind is float and type(value) is int and value.bit_length() <= NUMBER_BITS_MAX:
        return float(value)
    if kind is not Path and type(value) is kind:
        return value
    expected = (
        "a path (text)"
        if kind is Path
        else {str: "text", int: "an integer", bool: "true or false"}.get(kind, "a number")
    )
    raise ConfigError(f"{name}: expected {expected}, found {type(value).__name__}")


def _path(name: str, value: str, folder: Path) -> Path:
    try:
        found = folder / Path(value).expanduser()
    except RuntimeError:  # ~name of nobody
        raise ConfigError(
            f"{name}: found {shown(value)}, expected a path from a home folder that there is"
        ) from None
    if not value.isprintable():
        raise ConfigError(f"{name}: found {shown(value)}, expected a path in printable characters")
    return found


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType)


def parse_config(text: str, folder: Path) -> GatewayConfig:
    """Read a configuration from TOML text.

    Args:
        text: the file's text.
        folder: where relative paths start.

    Raises:
        ConfigError: not TOML, an unknown or missing key, a wrong type or a value out of range.
    """
    return _config(text.encode(), folder, "configuration")


def load_config(path: Path) -> GatewayConfig:
    """Read the configuration file at `path`.

    Raises:
        ConfigError: the file cannot be read or is not a valid configuration.
    """
    try:
        raw = read_whole(path, SETTINGS_MAX)
    except OSError as error:
        raise ConfigError(
            f"configuration: cannot read {path}: {error.strerror}",
            hint="name an existing TOML file; docs/operate/gateway.md lists every setting",
        ) from error
    return _config(raw, path.resolve().parent, f"configuration {path}")


def _config(raw: bytes, folder: Path, what: str) -> GatewayConfig:
    try:
        document = parse_settings(raw)
    except MalformedError as error:
        raise ConfigError(
            f"{what}: {error.message}", hint="docs/operate/gateway.md lists every setting"
        ) from error
    fields = {item.name: item for item in dataclasses.fields(GatewayConfig)}
    unknown = sorted(set(document) - set(fields))
    if unknown:
        raise ConfigError(
            f"configuration: found unknown key {listed(unknown, limit=48)}",
            hint=f"expected some of: {', '.join(fields)}",
        )
    needed = [name for name, item in fields.items() if item.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in document]
    if missing:
        raise ConfigError(f"configuration: missing key {', '.join(missing)}")
    hints = typing.get_type_hints(GatewayConfig)
    values = {name: _convert(name, hints[name], value, folder) for name, value in document.items()}
    return GatewayConfig(**typing.cast("Any", values))
