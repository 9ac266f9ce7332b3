"""What an importer demands of a manifest before its reference values count.

    {"signed"?: "required" | "any", "profiles"?: [URI, …] | "any",
     "validity"?: "enforced" | "ignored"}

Without a member the stricter word holds: signed, a profile whose rules are known or none at all,
and inside its time. The rules of a profile it declares are checked whatever the rule says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.verify.corim_profile import PROFILES, check_digests, check_profile
from wire.errors import refused

if TYPE_CHECKING:
    from attestation.formats.corim import Manifest, Window
    from attestation.ledger import Ledger
    from attestation.members import Members

_refused: Final = partial(refused, about="CoRIM")
KEYS: Final[tuple[tuple[str, ...], tuple[str, ...]]] = ((), ("signed", "profiles", "validity"))
PROFILES_MAX: Final = 16
ANY: Final = "any"

_SIGNED: Final = ("required", ANY)
_VALIDITY: Final = ("enforced", "ignored")


@dataclass(frozen=True, slots=True)
class CorimRule:
    """Accepts manifests.

    Attributes:
        signed: whether only signed ones count.
        profiles: profiles that may be declared; None accepts any.
        validity: whether the times in it are enforced.
    """

    signed: bool
    profiles: frozenset[str] | None
    validity: bool


def parse(members: Members) -> CorimRule:
    """The rule of an importer.

    Raises:
        PolicyError: a member of another value.
    """
    return CorimRule(
        _word(members, "signed", _SIGNED), _profiles(members), _word(members, "validity", _VALIDITY)
    )


def judge(ledger: Ledger, manifest: Manifest, rule: CorimRule, now: int) -> None:
    """Steps 6 to 10: whether the manifest may be imported.

    Steps 1 to 5 are the examination's (`schemes.corim`). Reasons: `signature_missing` (6),
    `manifest_not_yet_valid`, `manifest_expired` (7), `profile_not_accepted` (8),
    `profile_violation` (9, 10).
    """
    ledger.run("corim 6 signed", lambda: _check_signed(manifest, rule))
    ledger.run("corim 7 time", lambda: _check_times(manifest, rule, now))
    ledger.run("corim 8 profile", lambda: _check_declared(manifest, rule))
    ledger.run("corim 9 digests", lambda: check_digests(manifest))
    ledger.run("corim 10 profile rules", lambda: check_profile(manifest))


def _check_signed(manifest: Manifest, rule: CorimRule) -> str:  # 6
    if rule.signed and manifest.signing is None:
        raise _refused("signature_missing", "found no signature, expected one")
    return "signed" if manifest.signing is not None else "unsigned, as accepted"


def _check_times(manifest: Manifest, rule: CorimRule, now: int) -> str:  # 7
    if not rule.validity:
        return "ignored"
    of_signature = manifest.signing.window if manifest.signing is not None else None
    windows = [window for window in (manifest.window, of_signature) if window is not None]
    for window in windows:
        _check_window(window, now)
    return f"{len(windows)} windows hold"


def _check_window(window: Window, now: int) -> None:
    if window.begin is not None and now < window.begin:
        raise _refused("manifest_not_yet_valid", f"found a start {window.begin - now} s from now")
    if window.end is not None and now > window.end:
        raise _refused("manifest_expired", f"found an end {now - window.end} s ago")


def _check_declared(manifest: Manifest, rule: CorimRule) -> str:  # 8
    accepted = rule.profiles
    if accepted is not None and not set(manifest.profiles) <= accepted:
        raise _refused("profile_not_accepted", f"expected only {len(accepted)} accepted ones")
    return f"{len(manifest.profiles)} declared"


def _profiles(members: Members) -> frozenset[str] | None:
    if "profiles" not in members:
        return frozenset(PROFILES)
    if members.value("profiles") == ANY:
        return None
    return frozenset(members.texts("profiles", PROFILES_MAX))


def _word(members: Members, key: str, words: tuple[str, str]) -> bool:
    """Whether the first of two words is said; it is when none is."""
    if key not in members:
        return True
    if members.value(key) not in words:
        raise members.fail(key, " or ".join(words))
    return bool(members.value(key) == words[0])
