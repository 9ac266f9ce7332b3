"""A programmable worker with real crypto: honest until a test changes one of its facts.

    tee = SoftwareTee()
    tee.facts["aud"] = "elsewhere"          # one fact of the binding
    verdict = tee.appraise()                # real evidence for it, judged under tee.policy()

Nothing is stubbed: bindings, posture records, statements and policies are encoded and signed by
the project's own code, and `tee.keys` opens what is sealed to it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.appraise import appraise
from attestation.binding import Kem, Model, encode_binding, report_data
from attestation.evidence import SOFTWARE, Evidence
from attestation.examined import NO_COLLATERAL
from attestation.formats.software import LABEL, encode_body, encode_statement
from attestation.measurement import combine
from attestation.policy import Policy, parse_policy
from attestation.posture import Control, Posture, encode_posture, record_digest, sign_posture
from attestation.result import Refused
from wire.ids import b64u, sha256_tag
from wire.suites import HYBRID, SUITES, X25519, PrivateKey

if TYPE_CHECKING:
    from attestation.examined import CollateralSet
    from attestation.result import AppraisedEvidence

NOW = 1_790_000_000
AUD = "anchorhold-test"
SERVICE_POLICY = sha256_tag(b"the service policy of the tests")


class Tee:
    """What every simulated worker has; a subclass says what its evidence is.

    Attributes:
        now: Unix seconds at which verdicts are asked for.
        sig: receipt and notice key; keys: private HPKE key by suite.
        parts: measured parts; their combination is the measurement.
        controls: posture controls; posture_signer, posture_boot: who signs them, for which start.
        facts: members of the binding (arguments of `encode_binding`).
        demands: the policy document; rule: its one accept rule.
    """

    kind = ""

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        self.now = now
        self.sig = Ed25519PrivateKey.from_private_bytes(_seed(seed, "sig"))
        self.keys: dict[str, PrivateKey] = {
            name: SUITES[name].private_key(_seed(seed, name)) for name in (HYBRID, X25519)
        }
        self.parts = {"first_party": sha256_tag(b"code"), "model": sha256_tag(b"weights")}
        self.controls = {"seccomp": Control("applied"), "memfd_secret": Control("unavailable")}
        self.posture_signer = self.sig
        boot = _seed(seed, "boot")[:16]
        self.posture_boot = boot
        self.facts: dict[str, Any] = {
            "aud": aud,
            "wid": f"worker-{seed}",
            "boot": boot,
            "epoch": 0,
            "kems": [self.kem(HYBRID)],
            "sig_pk": self.sig.public_key().public_bytes_raw(),
            "image": self.measurement(),
            "policy": SERVICE_POLICY,
            "models": [Model("m", sha256_tag(b"weights"))],
            "nbf": now,
            "exp": now + 3600,
        }
        self.rule: dict[str, Any] = {
            "kind": self.kind,
            "measurements": [self.measurement()],
            "posture": {"seccomp": "applied"},
        }
        self.demands: dict[str, Any] = {
            "v": 1,
            "id": "tests",
            "seq": 1,
            "not_before": now - 3600,
            "expires": now + 24 * 3600,
            "aud": aud,
            "min_workers": 1,
            "accept": [self.rule],
            "models": [{"name": "m"}],
            "service_policies": [SERVICE_POLICY],
        }

    def kem(self, suite: str) -> Kem:
        """The public half of a key."""
        return Kem(suite, SUITES[suite].public_bytes(self.keys[suite]))

    def measurement(self) -> str:
        """The measurement the parts give."""
        return combine(self.parts)

    def record(self) -> bytes:
        """The posture record's bytes."""
        return encode_posture(Posture(self.posture_boot, self.controls))

    def posture(self) -> bytes:
        """The signed posture container."""
        return sign_posture(self.record(), self.posture_signer)

    def binding(self) -> bytes:
        """The binding's bytes, naming the posture record unless a fact says otherwise."""
        return encode_binding(**{"posture": record_digest(self.record()), **self.facts})

    def evidence(self, binding_raw: bytes) -> Evidence:
        """Evidence for a binding."""
        raise RuntimeError("a kind of worker says how its evidence is made")

    def presented(self, binding_raw: bytes) -> list[Evidence]:
        """All evidence of this worker."""
        return [self.evidence(binding_raw)]

    def collateral(self) -> CollateralSet:
        """What vendors state about it."""
        return NO_COLLATERAL

    def policy(self) -> Policy:
        """The policy that accepts this worker, as a tenant would write it."""
        return parse_policy(json.dumps(self.demands).encode())

    def appraise(self, **changes: Any) -> AppraisedEvidence | Refused:
        """The verdict on what this worker presents; `changes` replace arguments of `appraise`."""
        binding = changes.pop("binding_raw", None) or self.binding()
        arguments: dict[str, Any] = {
            "evidence": self.presented(binding) if "evidence" not in changes else None,
            "posture_raw": self.posture(),
            "policy": self.policy(),
            "now": self.now,
            "collateral": self.collateral() if "collateral" not in changes else None,
        }
        return appraise(binding, **{**arguments, **changes})


class SoftwareTee(Tee):
    """A worker vouched for by a development root.

    Attributes:
        root: the root the policy lists; signer: who signs the statement.
        statement: members of the statement that differ from the honest ones.
    """

    kind = SOFTWARE

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.root = Ed25519PrivateKey.from_private_bytes(_seed("vendor", "root"))
        self.signer = self.root
        self.statement: dict[str, Any] = {}
        self.rule["roots"] = [b64u(self.root.public_key().public_bytes_raw())]
        self.demands["allow_software"] = True

    def evidence(self, binding_raw: bytes) -> Evidence:
        honest = {
            "report_data": report_data(binding_raw),
            "measurement": self.measurement(),
            "parts": self.parts,
            "ts": self.now * 1000,
        }
        statement = encode_statement(**{**honest, **self.statement})
        return Evidence(SOFTWARE, encode_body(statement, self.signer.sign(LABEL + statement)))


def refused(verdict: AppraisedEvidence | Refused, *codes: str) -> Refused:
    """The refusal, for exactly these reasons in this order; and some check says so."""
    assert isinstance(verdict, Refused), "accepted"
    assert verdict.codes == codes
    assert any(check.ok is not True for check in verdict.checks)
    return verdict


def _seed(owner: str, name: str) -> bytes:
    return hashlib.sha256(f"{owner}/{name}".encode()).digest()
