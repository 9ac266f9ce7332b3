"""The operator's deny list: binding hashes that are refused at once, one base64url text a line."""

from pathlib import Path

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError, MalformedError
from wire.ids import unb64u

#: More than every worker of a large fleet in a day.
ENTRIES_MAX = 4096
#: Every entry with a word on why, four times over.
DENY_MAX = 1024 * 1024


def parse_deny_list(text: str) -> frozenset[bytes]:
    """Read a deny list; empty lines and lines beginning with `#` say nothing.

    Raises:
        ConfigError: a line is no binding hash, or there are too many.
    """
    found: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        try:
            found.add(unb64u(entry, 32))
        except MalformedError as error:
            raise ConfigError(
                f"deny list: line {number}: expected 43 base64url characters of a binding hash"
            ) from error
    if len(found) > ENTRIES_MAX:
        raise ConfigError(f"deny list: at most {ENTRIES_MAX} entries expected, found {len(found)}")
    return frozenset(found)


def load_deny_list(path: Path | None) -> frozenset[bytes]:
    """Read the file; none configured denies nothing, a missing one is an error.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None:
        return frozenset()
    try:
        return parse_deny_list(read_whole(path, DENY_MAX).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"deny_file: cannot read {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"deny_file: {path.name} is not UTF-8 text") from error
