"""What a policy demands of a Nitro enclave's state.

    {"image": {"any_of": [{"pcr0": hex, "pcr1"?: hex, "pcr2"?: hex}, …]},
     "pcr8_in"?: [hex, …], "pcr3_in"?: [hex, …], "max_age_s"?: seconds or "any",
     "digest"?: "SHA384", "debug"?: false}

A register that a rule names and the document lacks is refused, never skipped: verifiers that took
an absent register for an equal one have accepted any image. A debug enclave is refused whatever
the rule says, so `debug` may only be stated as false. `"image": "any"` is for the conformance
index only: whoever starts an enclave extends the register that names the worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.formats.nitro import DEBUG_PCR
from attestation.members import Members
from wire.errors import PolicyError, refused
from wire.limits import CLOCK_SKEW_S

from .demands import IMAGE_NEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.nitro import NitroDocument
    from attestation.ledger import Ledger

_refused: Final = partial(refused, about="Nitro document")
KEYS: Final = (("image",), ("pcr8_in", "pcr3_in", "max_age_s", "digest", "debug"))

ANY: Final = "any"
DIGEST: Final = "SHA384"  # what AWS documents; the other two names exist in its code only
AGE_DEFAULT_S: Final = 300
AGE_MAX_S: Final = 3 * 3600  # the document's certificate lives no longer
IMAGES_MAX: Final = 64
ROLE_PCR: Final = 3  # IAM role of the parent instance
SIGNER_PCR: Final = 8  # certificate that signed the image

_IMAGE: Final[Mapping[str, int]] = {"pcr0": 0, "pcr1": 1, "pcr2": 2}
_HEX = re.compile(r"[0-9a-f]{96}")


@dataclass(frozen=True, slots=True)
class NitroRule:
    """Accepts Nitro documents.

    Attributes:
        images: register values of each accepted image; None accepts any image.
        signers: accepted values of PCR 8; None asks nothing.
        roles: accepted values of PCR 3; None asks nothing.
        max_age_s: oldest accepted document; None accepts any age.
        digest: hash of the registers.
    """

    images: tuple[Mapping[int, bytes], ...] | None
    signers: frozenset[bytes] | None
    roles: frozenset[bytes] | None
    max_age_s: int | None
    digest: str

    @property
    def unsaid(self) -> str:
        """Which images; a signer or a role is no answer, either may start any."""
        if self.images is None:
            return f'image: found "any", expected {{"any_of": [{{"pcr0": …}}]}} {IMAGE_NEEDED}'
        return ""


def parse(members: Members) -> NitroRule:
    """The rule of an `accept` item.

    Raises:
        PolicyError: a member of another type or value.
    """
    if members.flag("debug", default=False):
        raise members.fail("debug", "false: a debug enclave's memory is readable")
    digest = members.text("digest") if "digest" in members else DIGEST
    if digest != DIGEST:
        raise members.fail("digest", DIGEST)
    return NitroRule(
        _images(members),
        _values(members, "pcr8_in"),
        _values(members, "pcr3_in"),
        _age(members),
        digest,
    )


def judge(ledger: Ledger, document: NitroDocument, rule: NitroRule, now: int) -> None:
    """Steps 7 to 12: the state of an enclave.

    Reasons: `pcr_missing`, `debug_enabled` (7), `digest_not_accepted` (8), `evidence_stale`,
    `evidence_not_yet_valid` (9), `image_not_accepted` (10), `signer_not_accepted` (11),
    `role_not_accepted` (12).
    """
    ledger.run("nitro 7 debug", lambda: _check_debug(document))
    ledger.run("nitro 8 digest", lambda: _check_digest(document, rule.digest))
    ledger.run("nitro 9 age", lambda: _check_age(document, rule.max_age_s, now))
    ledger.run("nitro 10 image", lambda: _check_image(document, rule.images))
    if rule.signers is not None:
        signers = rule.signers
        ledger.run(
            "nitro 11 signer",
            lambda: _check_value(document, SIGNER_PCR, signers, "signer_not_accepted"),
        )
    if rule.roles is not None:
        roles = rule.roles
        ledger.run(
            "nitro 12 role", lambda: _check_value(document, ROLE_PCR, roles, "role_not_accepted")
        )


def _check_debug(document: NitroDocument) -> str:  # 7
    register = _register(document, DEBUG_PCR)
    if not any(register):
        raise _refused("debug_enabled", f"found PCR {DEBUG_PCR} zero: the enclave is in debug mode")
    return f"PCR {DEBUG_PCR} is set"


def _check_digest(document: NitroDocument, digest: str) -> str:  # 8
    if document.digest != digest:
        raise _refused("digest_not_accepted", f"found {document.digest}, expected {digest}")
    return digest


def _check_age(document: NitroDocument, max_age_s: int | None, now: int) -> str:  # 9
    age = now - document.timestamp_ms // 1000
    if max_age_s is None:
        return "any age"
    if age < -CLOCK_SKEW_S:
        raise _refused("evidence_not_yet_valid", f"found a document made {-age} s from now")
    if age > max_age_s:
        raise _refused("evidence_stale", f"found an age of {age} s, expected at most {max_age_s}")
    return f"{age} s old"


def _check_image(  # 10
    document: NitroDocument, images: tuple[Mapping[int, bytes], ...] | None
) -> str:
    if images is None:
        return "any image"
    for image in images:
        if all(document.pcrs.get(number) == value for number, value in image.items()):
            return f"one of {len(images)}"
    _register(document, DEBUG_PCR)
    raise _refused("image_not_accepted", f"found registers of none of {len(images)} images")


def _check_value(
    document: NitroDocument, number: int, accepted: frozenset[bytes], code: str
) -> str:
    if _register(document, number) not in accepted:
        raise _refused(code, f"found a PCR {number} that is none of {len(accepted)} accepted")
    return f"PCR {number} is one of {len(accepted)}"


def _register(document: NitroDocument, number: int) -> bytes:
    value = document.pcrs.get(number)
    if value is None:
        raise _refused("pcr_missing", f"PCR {number} is not in the document")
    return value


def _images(members: Members) -> tuple[Mapping[int, bytes], ...] | None:
    value = members.value("image")
    if value == ANY:
        return None
    inner = Members(value, "policy.accept.image", required=("any_of",), error=PolicyError)
    return tuple(_image(item) for item in inner.array("any_of", IMAGES_MAX, 1))


def _image(item: object) -> Mapping[int, bytes]:
    members = Members(
        item,
        "policy.accept.image.any_of",
        required=("pcr0",),
        optional=("pcr1", "pcr2"),
        error=PolicyError,
    )
    return {number: _hex(members, name) for name, number in _IMAGE.items() if name in members}


def _values(members: Members, key: str) -> frozenset[bytes] | None:
    if key not in members:
        return None
    for item in members.texts(key, IMAGES_MAX, 1):
        if _HEX.fullmatch(item) is None or not int(item, 16):
            raise members.fail_item(key, item, "96 lower-case hex digits, not all zero")
    return frozenset(bytes.fromhex(item) for item in members.texts(key, IMAGES_MAX, 1))


def _hex(members: Members, key: str) -> bytes:
    text = members.text(key)
    # Zero is what a debug enclave has in every register of its image.
    if _HEX.fullmatch(text) is None or not int(text, 16):
        raise members.fail(key, "96 lower-case hex digits, not all zero")
    return bytes.fromhex(text)


def _age(members: Members) -> int | None:
    if "max_age_s" not in members:
        return AGE_DEFAULT_S
    if members.value("max_age_s") == ANY:
        return None
    return members.integer("max_age_s", 1, AGE_MAX_S)
