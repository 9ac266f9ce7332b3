"""What a service answers to a live challenge: honest, or with one fact wrong.

The honest answer is the listed binding with the asker's nonce in it, and evidence made for it now.
Every lie re-makes the evidence for what it shows, so that only the fact in its name is wrong.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from simulators.tee import SoftwareTee

from attestation.binding import Beacon, Model
from attestation.posture import Control
from attestation.verify.credential import Credential
from wire.ids import b64u, sha256_tag, unb64u
from wire.suites import HYBRID

if TYPE_CHECKING:
    from simulators.answers import Listed
    from simulators.service import Service
    from simulators.tee import Tee

LIVE_LIES = frozenset(
    {
        # the binding, beyond its nonce
        "live_other_kem", "live_other_boot", "live_other_model", "live_longer_life",
        "live_other_beacon", "live_other_posture",
        # the nonce
        "live_no_nonce", "live_other_nonce", "live_recorded",
        # evidence and posture
        "live_evidence_of_another_worker", "live_listed_evidence", "live_no_posture",
        # the reply
        "live_malformed", "live_without_evidence",
    }
)  # fmt: skip


def live_answer(service: Service, listed: Listed, asked: dict[str, Any]) -> dict[str, Any]:
    """The reply to `POST /v1/workers/{wid}/challenge`."""
    lies, tee = service.lies, listed.tee
    facts = {"nonce": unb64u(asked["nonce"], 32), **_changed(lies, tee)}
    if "live_other_beacon" in lies:  # genuine, and of now: a new binding would have it
        size = service.log.size
        facts["beacon"] = Beacon(service.log.origin, size, service.log.root(size))
    controls = tee.controls
    if "live_other_posture" in lies:  # good, and signed by the worker
        tee.controls = {**controls, "memfd_secret": Control("applied")}
    posture = tee.posture()
    binding = _binding(tee, facts)
    tee.controls = controls
    evidence = tee.presented(binding)
    if "live_evidence_of_another_worker" in lies:
        stranger = SoftwareTee("stranger", service.now)
        evidence = stranger.presented(stranger.binding())
    if "live_listed_evidence" in lies:
        evidence = list(listed.evidence)
    activate = getattr(tee, "activate", None)
    credential = asked["credential"]
    answered = activate and credential is not None
    reply = {
        "binding": b64u(binding),
        "evidence": [item.to_json() for item in evidence],
        "posture": b64u(posture),
        "answer": activate(Credential.from_json(credential)) if answered else None,
    }
    if "live_recorded" in lies:
        reply = service.recorded_live.setdefault(listed.bh, reply)
    if "live_no_posture" in lies:
        reply["posture"] = None
    if "live_malformed" in lies:
        reply["binding"] = b64u(binding[:-1])
    if "live_without_evidence" in lies:
        del reply["evidence"]
    return reply


def _changed(lies: set[str], tee: Tee) -> dict[str, Any]:
    """Members of the live binding that differ from the listed one's, for a lie."""
    if "live_no_nonce" in lies:
        return {"nonce": None}
    if "live_other_nonce" in lies:
        return {"nonce": hashlib.sha256(b"somebody else's challenge").digest()}
    if "live_other_kem" in lies:
        return {"kems": [SoftwareTee("stranger", tee.now).kem(HYBRID)]}
    if "live_other_boot" in lies:
        return {"boot": hashlib.sha256(b"another start").digest()[:16]}
    if "live_other_model" in lies:
        return {"models": [*tee.facts["models"], Model("other", sha256_tag(b"weights"))]}
    if "live_longer_life" in lies:
        return {"exp": tee.facts["exp"] + 3600}
    return {}


def _binding(tee: Tee, changes: dict[str, Any]) -> bytes:
    honest = tee.facts
    tee.facts = {**honest, **changes}
    try:
        return tee.binding()
    finally:
        tee.facts = honest
