"""What the collateral commands read: evidence files, and the operator's services file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.collateral.services import Services, services_of
from attestation.collateral_key import CollateralKey
from attestation.evidence import (
    EVIDENCE_ITEMS_MAX,
    EVIDENCE_MAX,
    KINDS,
    Evidence,
    evidence_list,
)
from attestation.formats.container import parse_container
from attestation.schemes import SCHEMES
from attestation.toml_table import SETTINGS_MAX
from wire.canonical import parse_strict
from wire.errors import ConfigError, MalformedError, ReceiptError

from .files import read_file
from .recorded import RECORDED_MAX, recorded_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from attestation.collateral.resolve import Resolved
    from attestation.scheme import Need

# Base64 and members, or all that is recorded of a worker.
EVIDENCE_FILE_MAX: Final = max(EVIDENCE_ITEMS_MAX * EVIDENCE_MAX * 3 // 2, RECORDED_MAX)
_RECORDED: Final = frozenset({"binding", "format"})  # of a worker document, of a receipt bundle


def needed_keys(path: Path) -> list[CollateralKey]:
    """What the evidence in a file will ask for.

    The file: one item {"kind", "body"}, an array of them, or what `client.recorded` reads, which is
    where people get evidence from.

    Raises:
        ConfigError: the file is no evidence, or of a kind that this version does not know.
    """
    return _keys(path, _needs)


def further_keys(path: Path, at_hand: Callable[[Sequence[Need]], Resolved]) -> list[CollateralKey]:
    """What only the collateral that was fetched for that evidence names.

    Args:
        path: the evidence, as for `needed_keys`.
        at_hand: finds what is in the cache by now.

    Raises:
        ConfigError: as `needed_keys`.
    """

    def further(item: Evidence) -> tuple[Need, ...]:
        scheme = SCHEMES.get(item.kind)
        if scheme is None or scheme.further is None:
            return ()
        roles = parse_container(item.body, *scheme.evidence).roles
        return scheme.further(roles, at_hand(scheme.needs(roles)).roles)

    return _keys(path, further)


def _keys(path: Path, needs: Callable[[Evidence], Sequence[Need]]) -> list[CollateralKey]:
    raw = read_file(path, EVIDENCE_FILE_MAX, "evidence")
    try:
        items = _items(parse_strict(raw, max_bytes=EVIDENCE_FILE_MAX))
        found = [need for item in items for need in needs(item)]
        return [CollateralKey(need.source, need.key) for need in found]
    except (MalformedError, ReceiptError) as error:
        raise ConfigError(
            f"evidence file {path}: {error.message}",
            hint="name what GET /v1/keys/BH of a gateway served, a receipt bundle, or evidence "
            'items {"kind": ..., "body": ...}',
        ) from error


def _items(document: object) -> tuple[Evidence, ...]:
    if isinstance(document, dict) and not _RECORDED.isdisjoint(document):
        return recorded_of(document).evidence
    return evidence_list(document if isinstance(document, list) else [document])


def read_services(path: Path | None) -> Services:
    """The services file, or the vendors' own addresses where there is none.

    Raises:
        ConfigError: unreadable, not TOML, empty, or it holds what is refused.
    """
    if path is None:
        return Services()
    raw = read_file(path, SETTINGS_MAX, "services")
    try:
        return services_of(raw)
    except ConfigError as error:
        raise ConfigError(
            f"services file {path}: {error.message}",
            hint=error.hint or "docs/operate/collateral.md lists what it may hold",
        ) from error


def _needs(item: Evidence) -> tuple[Need, ...]:
    if item.kind in KINDS:
        return ()  # judged by a key of the policy, or by certificates that come with it
    scheme = SCHEMES.get(item.kind)
    if scheme is None:
        known = ", ".join(SCHEMES)
        raise MalformedError(f"evidence: found an unknown kind, expected one of {known}")
    return scheme.needs(parse_container(item.body, *scheme.evidence).roles)
