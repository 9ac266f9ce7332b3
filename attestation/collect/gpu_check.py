"""A look at this machine's own GPUs, before they may work: what needs no network and no policy.

    1 list       the documents parse, 1 to 16 devices
    2 genuine    each device's chain ends in the pinned root, its key signed its report, the
                 firmware reported is certified, all for this nonce (steps 1 to 6 and 8 of
                 `attestation.verify.spdm`)
    3 distinct   no device is there twice, by key, serial number or chip

It keeps a guest from handing prompts to a device that is no genuine GPU, and says so where an
operator can read it. It replaces no verifier: whether firmware and driver are accepted, and whether
a certificate was revoked, is judged by those who hold a policy. Pure; only `cryptography` is
needed, because the launcher that runs it has no other verifier at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.examined import NO_BYTES, Expected, Question
from attestation.formats.gpu_list import parse_list
from attestation.ledger import Ledger
from attestation.verify.device import Item, examine_items
from attestation.verify.fleet import check_distinct
from attestation.verify.spdm import GPUS
from wire.errors import AttestationError

if TYPE_CHECKING:
    from attestation.anchors import Anchors


def check_gpus(evidence_list: bytes, nonce: bytes, anchors: Anchors, now: int) -> None:
    """Steps 1 to 3.

    Args:
        evidence_list: as `collect.nvml` makes it.
        nonce: what every report must answer.
        anchors: the roots that count.
        now: Unix seconds.

    Raises:
        MalformedError: no such list.
        AttestationError: every reason, and the first one's sentence.
    """
    # 1
    entries = parse_list(evidence_list)
    # 2
    items = [Item(entry.report, entry.chain, entry.arch) for entry in entries]
    ledger = Ledger()
    question = Question(NO_BYTES, anchors, now, expected=Expected(nonce=nonce))
    fleet = examine_items(ledger, items, question, GPUS).fleet
    if ledger.reasons or fleet is None or not ledger.accepted:
        first = ledger.reasons[0].detail if ledger.reasons else "a check did not run"
        raise AttestationError(
            f"GPUs: {first}", reasons=tuple(reason.code for reason in ledger.reasons)
        )
    # 3
    check_distinct(fleet)
