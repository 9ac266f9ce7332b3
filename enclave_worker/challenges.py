"""Answers to whoever wants to see the attestation at work: credentials, live evidence."""

from typing import Any

from wire.errors import AnchorholdError, UnavailableError
from wire.ids import b64u, unb64u
from wire.possession import prove_possession

from .bench import Bench
from .epochs import Epoch
from .port import LauncherPort

# Each live challenge costs an attestation (a second on a TPM); more at once are refused as busy.
LIVE_MAX = 4
NONCE_LEN = 32
BH_LEN = 32


class Challenges:
    """The worker's answers to challenges of gateways and, relayed by them, of clients."""

    def __init__(self, bench: Bench, port: LauncherPort, posture: bytes) -> None:
        """Answer with this worker's keys, this launcher's attester, this signed posture."""
        self._bench = bench
        self._port = port
        self._posture = posture
        self._live = 0

    def introduction(self, epoch: Epoch, proof: bytes) -> dict[str, Any]:
        """Return HELLO or KEYS for an epoch.

        Args:
            epoch: an attested one.
            proof: what this connection wants signed (wire.link.hello_bytes).
        """
        return {
            "wid": self._bench.config.wid,
            "binding": b64u(epoch.binding),
            "evidence": [item.to_json() for item in epoch.evidence],
            "posture": b64u(self._posture),
            "sig": b64u(self._bench.keyring.sig.sign(proof)),
            "activation": None,
        }

    async def activate(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer ACTIVATE: the attester shows that its two keys live in one TPM."""
        answer: dict[str, Any] | None
        try:
            answer = await self._port.activate(question["credential"])
        except AnchorholdError:
            answer = None
        return {"id": question["id"], "answer": answer}

    def prove(self, question: dict[str, Any], nonce: bytes) -> dict[str, Any]:
        """Answer PROVE: this worker opens what was sealed to each key of one of its bindings.

        Args:
            question: as received; what is sealed for another link or binding does not open.
            nonce: this connection's challenge.
        """
        answer: str | None
        try:
            answer = b64u(self._opened(question, nonce))
        except (AnchorholdError, KeyError, TypeError):
            answer = None
        return {"id": question["id"], "answer": answer}

    async def live(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer CHALLENGE_JOB: the binding asked about with the asker's nonce, attested now."""
        self._live += 1
        try:
            if self._live > LIVE_MAX:
                return {"id": question["id"], "error": "busy"}
            return {"id": question["id"], **await self._fresh(question)}
        except (AnchorholdError, KeyError):
            return {"id": question["id"], "error": "unavailable"}
        finally:
            self._live -= 1

    async def _fresh(self, question: dict[str, Any]) -> dict[str, Any]:
        bench = self._bench
        nonce = unb64u(question["nonce"], NONCE_LEN)
        epoch = self._asked(question)
        binding = bench.keyring.challenged(epoch, nonce)
        evidence = await self._port.attest(binding)
        answer: dict[str, Any] = {
            "binding": b64u(binding),
            "evidence": [item.to_json() for item in evidence],
            "posture": b64u(self._posture),
        }
        if question.get("credential") is not None:
            answer["answer"] = await self._port.activate(question["credential"])
        return answer

    def _opened(self, question: dict[str, Any], nonce: bytes) -> bytes:
        epoch = self._asked(question)
        keys = [(kid, key.private_key()) for kid, key in epoch.keys.items()]
        sealed = [unb64u(one) for one in question["sealed"]]
        return prove_possession(keys, sealed, nonce, epoch.bh)

    def _asked(self, question: dict[str, Any]) -> Epoch:
        """The epoch the asker has seen: while keys rotate, two are offered."""
        asked = unb64u(question["bh"], BH_LEN)
        offered = self._bench.keyring.offered(self._bench.clock.s())
        for epoch in offered:
            if epoch.bh == asked:
                return epoch
        raise UnavailableError("challenge: found no such binding, expected one on offer")
