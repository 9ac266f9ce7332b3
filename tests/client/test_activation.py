"""Evidence of a TPM counts only after this client's own challenge was answered, live."""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from simulators.tpm import TpmTee

from client.api import Client
from wire.errors import AttestationError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.service import Service

    from attestation.verify.credential import Credential
    from client.session import Options


class AnsweringTee(TpmTee):
    """A TPM that activates credentials: TPM2_ActivateCredential with this worker's keys.

    Attributes:
        answer: changes the honest answer.
    """

    answer: Callable[[dict[str, str]], Any] = staticmethod(lambda honest: honest)  # type: ignore[assignment]

    def activate(self, credential: Credential) -> Any:
        sha256 = hashes.SHA256()
        oaep = padding.OAEP(padding.MGF1(sha256), algorithm=sha256, label=b"IDENTITY\0")
        seed = self.ek_key.decrypt(credential.enc_secret, oaep)
        sized = int.from_bytes(credential.blob[:2], "big")
        integrity, identity = credential.blob[2 : 2 + sized], credential.blob[2 + sized :]
        expected = hmac.digest(
            _kdfa(seed, b"INTEGRITY", b"", 256), identity + credential.ak_name, "sha256"
        )
        assert hmac.compare_digest(integrity, expected)
        key = _kdfa(seed, b"STORAGE", credential.ak_name, 128)
        decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        secret = (decryptor.update(identity) + decryptor.finalize())[2:]
        return self.answer({"secret": b64u(secret)})


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    message = (1).to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, "sha256")[: bits // 8]


@pytest.fixture
def tee(service: Service) -> AnsweringTee:
    """The one worker of the deployment."""
    made = AnsweringTee("tpm", service.now)
    service.workers.clear()
    service._first_tee = made  # type: ignore[assignment]
    service.add(made)
    service.publish()
    return made


def report(service: Service, options: Callable[..., Options]) -> Any:
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        return client.report()


def test_an_answered_challenge_gives_simulated_trust(
    service: Service, tee: AnsweringTee, options: Callable[..., Options]
) -> None:
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options()) as client,
    ):
        found = client.verify()
        assert found.trust == "simulated"
        assert any(c.step.endswith("8 live evidence") and c.ok for c in found.checks)
        result = client.chat([{"role": "user", "content": "hi"}], "m")
        assert (result.text, result.trust) == ("You said: hi", "simulated")
        asked = [seen.path for seen in service.seen if seen.path.endswith("/challenge")]
        client.chat([{"role": "user", "content": "again"}], "m")
        again = [seen.path for seen in service.seen if seen.path.endswith("/challenge")]
        assert asked == again  # the verdict is kept until it expires


@pytest.mark.parametrize(
    ("answer", "reason", "exits"),
    [
        (lambda honest: {"secret": b64u(b"\x01" * 32)}, "activation_mismatch", 2),
        (lambda honest: None, "activation_missing", 3),
        (lambda honest: {"secret": "!"}, "activation_missing", 3),
        (lambda honest: {}, "activation_missing", 3),
    ],
    ids=["another TPM's answer", "no answer", "garbage", "empty"],
)
def test_a_challenge_that_is_not_answered_right_is_refused(
    service: Service,
    tee: AnsweringTee,
    options: Callable[..., Options],
    answer: Any,
    reason: str,
    exits: int,
) -> None:
    tee.answer = answer
    found = report(service, options)
    assert isinstance(found.error, AttestationError)
    assert reason in found.error.reasons
    assert found.exit_code == exits


def test_every_client_makes_its_own_challenge(
    service: Service, tee: AnsweringTee, options: Callable[..., Options]
) -> None:
    report(service, options)
    report(service, options)
    bodies = [seen.body for seen in service.seen if seen.path.endswith("/challenge")]
    questions = [json.loads(body) for body in bodies if body != b"{}"]  # that one tests the key
    assert len(questions) == 2
    for member in ("nonce", "credential"):
        assert questions[0][member] != questions[1][member]
