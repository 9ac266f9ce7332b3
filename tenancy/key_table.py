"""The table of API keys: one JSON file of digests, one file with the pepper beside it.

The file holds nothing that opens a door: without the pepper (kept in its own file, mode 0600) the
digests cannot even be tested against guesses, and the secrets are 256-bit random anyway.
"""

import errno
import hmac
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from attestation.collateral.whole_file import read_whole, write_whole
from wire.canonical import parse_strict
from wire.errors import ConfigError, MalformedError
from wire.excerpt import json_kind, json_value, listed, shown

from .identity import (
    LIFE_MAX_S,
    SCOPES,
    TENANT_PATTERN,
    KeyRecord,
    Principal,
    digest_secret,
    mint,
    parse,
)

#: A table is small: 100,000 keys stay below this; a larger file is a mistake, not a table.
TABLE_MAX_BYTES = 32 * 1024 * 1024
PEPPER_BYTES = 32
#: A longer pepper is taken; one that long is another file.
PEPPER_MAX_BYTES = 4096
#: Two live keys per tenant and env are enough for rotation; more is allowed but capped.
KEYS_PER_TENANT_MAX = 64
_FIELDS = {"kid", "tenant", "digest", "created", "expires", "scopes", "revoked"}


def check_grant(tenant: str, scopes: Iterable[str], life_s: int) -> tuple[str, ...]:
    """Whether a key may be minted for these, whatever the table; returns the scopes, each once.

    Whoever makes a table for its first key asks this before anything is written.

    Raises:
        ConfigError: tenant name, scope or life is not acceptable; the message says why.
    """
    if TENANT_PATTERN.fullmatch(tenant) is None:
        raise ConfigError(
            f"tenant: found {shown(tenant)} of {len(tenant)} characters, expected 1-64"
            " lower-case letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    wanted = tuple(dict.fromkeys(scopes))
    if not wanted or any(scope not in SCOPES for scope in wanted):
        raise ConfigError(f"scopes: found {listed(wanted)}, expected some of {', '.join(SCOPES)}")
    if not 0 < life_s <= LIFE_MAX_S:
        raise ConfigError(f"life: expected 1 to {LIFE_MAX_S} seconds, found {life_s}")
    return wanted


@dataclass(frozen=True, slots=True)
class KeyTable:
    """An immutable table of key records and the pepper that checks them."""

    pepper: bytes = field(repr=False)
    records: Mapping[str, KeyRecord] = field(default_factory=dict)

    def find(self, kid: str) -> KeyRecord | None:
        """The record of `kid`, revoked or not."""
        return self.records.get(kid)

    def authenticate(self, text: str, now: int) -> Principal | None:
        """Check a presented key.

        Args:
            text: the key as presented.
            now: Unix seconds.

        Returns:
            The principal, or None. One answer for every kind of failure (malformed, unknown,
            wrong secret, expired, revoked); the digest of a well-formed key is computed whether
            its kid exists or not, so the time does not tell which kids exist.
        """
        try:
            key = parse(text)
        except MalformedError:
            return None
        record = self.find(key.kid)
        expected = record.digest if record is not None else "0" * 64
        matches = hmac.compare_digest(digest_secret(self.pepper, key.secret), expected)
        if record is None or not matches or record.revoked or now >= record.expires:
            return None
        return Principal(record.tenant, record.kid, frozenset(record.scopes))

    def create(
        self,
        tenant: str,
        scopes: Iterable[str],
        env: str,
        now: int,
        life_s: int,
        rng: Callable[[int], bytes],
    ) -> tuple["KeyTable", str, KeyRecord]:
        """Mint a key for `tenant`.

        Returns:
            The new table, the key's text (shown once, stored nowhere) and its record.

        Raises:
            ConfigError: tenant name, scope or life is not acceptable; the message says why.
        """
        wanted = check_grant(tenant, scopes, life_s)
        live = sum(
            r.tenant == tenant and not r.revoked and now < r.expires for r in self.records.values()
        )
        if live >= KEYS_PER_TENANT_MAX:
            raise ConfigError(
                f"tenant {tenant} has {live} live keys, the limit is {KEYS_PER_TENANT_MAX}",
                hint="revoke a key that is no longer used",
            )
        text, key = mint(env, rng)
        while self.find(key.kid) is not None:
            text, key = mint(env, rng)
        digest = digest_secret(self.pepper, key.secret)
        record = KeyRecord(key.kid, tenant, digest, now, now + life_s, wanted)
        return replace(self, records={**self.records, key.kid: record}), text, record

    def revoke(self, kid: str) -> "KeyTable":
        """Mark `kid` revoked; it stays in the table so that its use can still be named.

        Raises:
            ConfigError: no such key.
        """
        record = self.find(kid)
        if record is None:
            raise ConfigError(
                f"no key {shown(kid, 16)} in this table",
                hint="`anchorhold key list` shows all of them",
            )
        return replace(self, records={**self.records, kid: replace(record, revoked=True)})


def _parse_record(item: object, index: int) -> KeyRecord:
    if not isinstance(item, dict) or set(item) != _FIELDS:
        found = ", ".join(sorted(map(str, item))) if isinstance(item, dict) else type(item).__name__
        raise ConfigError(
            f"key table: entry {index}: expected the fields {', '.join(sorted(_FIELDS))};"
            f" found {found[:200]}"
        )
    texts = all(isinstance(item[name], str) for name in ("kid", "tenant", "digest"))
    times = all(type(item[name]) is int for name in ("created", "expires"))
    scopes = item["scopes"]
    listed = isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)
    if not texts or not times or not listed or type(item["revoked"]) is not bool:
        raise ConfigError(f"key table: entry {index}: a field has the wrong type")
    return KeyRecord(**{**item, "scopes": tuple(scopes)})


def _outline(document: object) -> str:
    """What a parsed document is, without what it holds."""
    if not isinstance(document, dict):
        return json_kind(document)
    return f"an object with v {json_value(document.get('v'))} and keys {listed(document, most=4)}"


def parse_table(raw: bytes, pepper: bytes) -> KeyTable:
    """Read a table from the bytes of its file.

    Raises:
        ConfigError: not a key table of version 1; the message names what was expected.
    """
    return _with_pepper(_parse_records(raw), pepper)


def _with_pepper(records: Mapping[str, KeyRecord], pepper: bytes) -> KeyTable:
    if len(pepper) < PEPPER_BYTES:
        raise ConfigError(f"pepper: expected {PEPPER_BYTES} bytes, found {len(pepper)}")
    return KeyTable(pepper, records)


def _parse_records(raw: bytes) -> Mapping[str, KeyRecord]:
    try:
        document = parse_strict(raw, max_bytes=TABLE_MAX_BYTES)
    except MalformedError as error:
        raise ConfigError(f"key table: not readable as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("v") != 1 or set(document) != {"v", "keys"}:
        raise ConfigError(
            f'key table: found {_outline(document)}, expected {{"v": 1, "keys": [...]}}'
        )
    if not isinstance(document["keys"], list):
        raise ConfigError(
            f"key table: found {json_kind(document['keys'])} under keys, expected an array"
        )
    records = [_parse_record(item, index) for index, item in enumerate(document["keys"])]
    by_kid = {record.kid: record for record in records}
    if len(by_kid) != len(records):
        raise ConfigError("key table: found a key id twice, expected each once")
    return by_kid


def encode_table(table: KeyTable) -> bytes:
    """The bytes of the table's file; the pepper is not in them."""
    keys = [{**asdict(record), "scopes": list(record.scopes)} for record in table.records.values()]
    return (json.dumps({"v": 1, "keys": keys}, indent=1, sort_keys=True) + "\n").encode()


def pepper_path(table: Path) -> Path:
    """Where the pepper of `table` lies unless the operator names another place."""
    return table.with_name(table.name + ".pepper")


def load_table(path: Path, pepper_file: Path | None = None) -> KeyTable:
    """Read table and pepper from disk.

    Raises:
        ConfigError: a file is missing, unreadable or not what it should be.
    """
    hint = "create one with `anchorhold key create --table FILE --tenant NAME`"
    pepper_file = pepper_file or pepper_path(path)
    try:
        raw = read_whole(path, TABLE_MAX_BYTES)
        records = _parse_records(raw)
        pepper = read_whole(pepper_file, PEPPER_MAX_BYTES)
    except OSError as error:
        at = Path(error.filename or path)
        if isinstance(error, IsADirectoryError):
            hint = "name a file: the table and its pepper are made where there are none"
        elif error.errno in (errno.EINVAL, errno.EFBIG):  # it is there, and no such file
            hint = "name another file"
        elif isinstance(error, PermissionError):
            hint = "run this as the user that owns the file"
        elif path.exists() != pepper_file.exists():
            hint = "a table and its pepper belong together: restore the one that is missing"
        raise ConfigError(f"key table: cannot read {at}: {error.strerror}", hint=hint) from error
    except ConfigError as error:
        # Whoever named the wrong file must not be told to write over it.
        raise ConfigError(f"{error.message} ({path})", hint="name another file") from error
    return _with_pepper(records, pepper)


def save_table(table: KeyTable, path: Path) -> None:
    """Write the table atomically: a reader sees the old one or the new one, never half of one."""
    write_whole(path, encode_table(table))


def open_or_create(
    path: Path, rng: Callable[[int], bytes], pepper_file: Path | None = None
) -> KeyTable:
    """Read the table, or make an empty one with a fresh pepper when neither file exists yet.

    Raises:
        ConfigError: exactly one of the two exists (a lost pepper cannot be replaced: every key in
            the table would silently stop working), or a file cannot be read or made.
    """
    pepper_file = pepper_file or pepper_path(path)
    if path.exists() or pepper_file.exists():
        return load_table(path, pepper_file)
    table = KeyTable(rng(PEPPER_BYTES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(pepper_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(table.pepper)
        save_table(table, path)
    except OSError as error:
        at = error.filename or path
        raise ConfigError(
            f"key table {path}: cannot create {at}: {error.strerror}",
            hint="name a file in a folder this user may write to",
        ) from error
    return table
