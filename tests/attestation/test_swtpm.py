"""The real thing: quotes and activation from swtpm, judged by the same appraisal."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tee import NOW
from simulators.tpm import TpmTee, quote_bytes

from attestation.binding import report32
from attestation.collect.tpm import EK_HANDLE, TpmAttester
from attestation.evidence import Evidence
from attestation.formats.tpm import encode_body, parse_body
from attestation.formats.tpm_structures import ALG_NULL, RESTRICTED, parse_public
from attestation.result import AppraisedEvidence, Refused
from attestation.verify.credential import challenge_for, make_credential
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError
from wire.ids import b64u, unb64u

if TYPE_CHECKING:
    from pathlib import Path

    from attestation.verify.credential import Activation

pytestmark = pytest.mark.tpm


class RealTee(TpmTee):
    """The simulated worker with a swtpm in place of the TPM in Python."""

    def __init__(self, attester: TpmAttester) -> None:
        # swtpm's certificates begin when it was made, so this worker lives now.
        super().__init__(now=int(time.time()))  # noqa: TID251 -- a test's clock
        self.attester = attester
        self.rule["roots"] = [attester.trust_anchor()]

    def evidence(self, binding_raw: bytes) -> Evidence:
        return self.attester.attest(binding_raw, 0)

    def activation(self, evidence: Evidence) -> Activation:
        challenge = challenge_for(evidence, os.urandom)
        assert challenge is not None
        return challenge.activation(self.attester.activate(challenge.credential.to_json()))


@pytest.fixture
def tee(attester: TpmAttester) -> RealTee:
    return RealTee(attester)


def edited(evidence: Evidence, sig: bytes, **changes: Any) -> Evidence:
    """The evidence with some members changed; `sig` is the raw TPMT_SIGNATURE."""
    parsed = parse_body(evidence.body)
    members: dict[str, Any] = {
        "quote": parsed.quote.raw,
        "sig": sig,
        "pcrs": dict(parsed.pcrs),
        "ak": parsed.ak.raw,
        "ek": parsed.ek.raw,
        "ek_cert": parsed.ek_cert,
        "chain": parsed.chain,
        "parts": dict(parsed.parts),
    }
    return Evidence("tpm2", encode_body(**{**members, **changes}))


def test_a_real_quote_with_real_activation_is_accepted_as_simulated(tee: RealTee) -> None:
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert verdict.trust == "simulated"
    assert verdict.measurement == tee.measurement()
    assert verdict.expires == tee.facts["exp"]


def test_a_real_quote_covers_the_binding_and_the_register(tee: RealTee) -> None:
    binding = tee.binding()
    parsed = parse_body(tee.evidence(binding).body)
    assert parsed.quote.extra_data == report32(binding)
    assert set(parsed.pcrs) == {*range(8), 11}
    measured = bytes.fromhex(tee.measurement().removeprefix("sha256:"))
    assert parsed.pcrs[11] == hashlib.sha256(bytes(32) + measured).digest()
    assert parsed.ak.name == tee.attester.ak_name()


def test_our_name_of_a_key_is_the_one_the_tpm_computes(attester: TpmAttester) -> None:
    tpm = attester._tpm
    tpm.tool("readpublic", "-c", EK_HANDLE, "-f", "tss", "-o", "work/t.pub", "-n", "work/t.name")
    name = (tpm.work / "t.name").read_bytes()
    assert parse_public((tpm.work / "t.pub").read_bytes()).name == name


def test_a_real_quote_for_another_binding_is_refused(tee: RealTee) -> None:
    evidence = tee.evidence(tee.binding())
    tee.facts["epoch"] = 1
    verdict = tee.appraise(evidence=[evidence])
    assert isinstance(verdict, Refused)
    assert verdict.codes == ("report_data_mismatch",)


def test_a_real_quote_under_a_foreign_root_is_refused(tee: RealTee) -> None:
    tee.rule["roots"] = TpmTee().rule["roots"]
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes == ("untrusted_root",)


def test_a_real_quote_with_other_register_values_is_refused(tee: RealTee) -> None:
    evidence = tee.evidence(tee.binding())
    activation = tee.activation(evidence)
    sig = _signature(evidence)
    pcrs = {**parse_body(evidence.body).pcrs, 0: bytes([1]) * 32}
    verdict = tee.appraise(evidence=[edited(evidence, sig, pcrs=pcrs)], activation=activation)
    assert isinstance(verdict, Refused)
    assert verdict.codes == ("pcr_digest_mismatch",)


def test_pure_python_make_credential_opens_in_the_tpm(tee: RealTee) -> None:
    evidence = tee.evidence(tee.binding())
    challenge = challenge_for(evidence, os.urandom)
    assert challenge is not None
    answer = tee.attester.activate(challenge.credential.to_json())
    assert unb64u(answer["secret"]) == challenge.secret


def test_tpm2_makecredential_and_ours_are_read_alike(tee: RealTee) -> None:
    """The tool's credential, carried in our JSON form, opens through our attester."""
    parsed = parse_body(tee.evidence(tee.binding()).body)
    tpm = tee.attester._tpm
    (tpm.work / "t.ek").write_bytes(parsed.ek.raw)
    (tpm.work / "t.secret").write_bytes(b"sixteen bytes ok")
    tpm.tool(
        "makecredential", "-T", "none", "-u", "work/t.ek", "-s", "work/t.secret",
        "-n", parsed.ak.name.hex(), "-o", "work/t.cred",
    )  # fmt: skip
    made = (tpm.work / "t.cred").read_bytes()
    magic, version, size = struct.unpack_from(">IIH", made)
    assert (magic, version) == (0xBADCC0DE, 1)
    blob, rest = made[10 : 10 + size], made[10 + size :]
    answer = tee.attester.activate(
        {
            "blob": b64u(blob),
            "secret": b64u(rest[2:]),
            "ak": b64u(parsed.ak.name),
            "ek": b64u(parsed.ek.name),
        }
    )
    assert unb64u(answer["secret"]) == b"sixteen bytes ok"
    ours = make_credential(parsed.ek.raw, parsed.ak.name, b"sixteen bytes ok", os.urandom)
    assert (len(ours.blob), len(ours.enc_secret)) == (len(blob), len(rest) - 2)


def test_the_tpm_refuses_a_credential_for_a_key_it_does_not_hold(tee: RealTee) -> None:
    """A key that lies about its attributes has another name, and its TPM does not know it."""
    liar = TpmTee()
    parsed = parse_body(tee.evidence(tee.binding()).body)
    liar.body["ek"], liar.body["ek_cert"] = parsed.ek.raw, parsed.ek_cert
    liar.chain = list(parsed.chain)
    challenge = challenge_for(liar.evidence(liar.binding()), os.urandom)
    assert challenge is not None
    with pytest.raises(AttestationError) as caught:
        tee.attester.activate(challenge.credential.to_json())
    assert caught.value.reasons == ("activation_refused",)
    # …and without the secret its otherwise flawless evidence is refused.
    liar.now = tee.now
    liar.facts.update(nbf=tee.now, exp=tee.now + 3600)
    liar.demands.update(not_before=tee.now - 1, expires=tee.now + 7200)
    liar.rule["roots"] = [tee.attester.trust_anchor()]
    verdict = liar.appraise(activation=challenge.activation(None))
    assert isinstance(verdict, Refused)
    assert verdict.codes == ("activation_missing",)


def test_an_activation_damaged_on_the_way_is_refused_by_the_tpm(tee: RealTee) -> None:
    challenge = challenge_for(tee.evidence(tee.binding()), os.urandom)
    assert challenge is not None
    credential = challenge.credential.to_json()
    blob = bytearray(unb64u(credential["blob"]))
    blob[-1] ^= 1
    with pytest.raises(AttestationError) as caught:
        tee.attester.activate({**credential, "blob": b64u(bytes(blob))})
    assert caught.value.reasons == ("activation_refused",)


def test_the_attester_refuses_what_is_no_credential(attester: TpmAttester) -> None:
    with pytest.raises(MalformedError, match=r"credential: key \"blob\" is missing"):
        attester.activate({})


def test_a_quote_forged_with_an_unrestricted_key_of_the_same_tpm_is_refused(tee: RealTee) -> None:
    """A genuine TPM signs any bytes with a key that is not restricted: a made-up quote too."""
    tpm = tee.attester._tpm
    binding = tee.binding()
    honest = parse_body(tee.evidence(binding).body)
    measured = bytes.fromhex(tee.measurement().removeprefix("sha256:"))
    registers = {n: bytes(32) for n in range(8)}
    registers[11] = hashlib.sha256(bytes(32) + measured).digest()
    forged = quote_bytes(report32(binding), registers)
    (tpm.work / "t.msg").write_bytes(forged)
    tpm.tool("createprimary", "-C", "o", "-G", "ecc", "-c", "work/t.primary")
    tpm.tool(
        "create", "-C", "work/t.primary", "-G", "ecc256:ecdsa-sha256:null", "-u", "work/t.pub",
        "-r", "work/t.priv", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign",
    )  # fmt: skip
    tpm.tool("flushcontext", "-t")
    tpm.tool(
        "load", "-C", "work/t.primary", "-u", "work/t.pub", "-r", "work/t.priv", "-c", "work/t.key"
    )
    tpm.tool("flushcontext", "-t")
    tpm.tool("sign", "-c", "work/t.key", "-g", "sha256", "-o", "work/t.sig", "work/t.msg")
    tpm.tool("flushcontext", "-t")
    public, sig = ((tpm.work / name).read_bytes() for name in ("t.pub", "t.sig"))
    assert not parse_public(public).has(RESTRICTED)
    assert parse_public(public).scheme != ALG_NULL
    evidence = Evidence(
        "tpm2",
        encode_body(
            quote=forged, sig=sig, pcrs=registers, ak=public, ek=honest.ek.raw,
            ek_cert=honest.ek_cert, chain=honest.chain, parts=dict(honest.parts),
        ),
    )  # fmt: skip
    challenge = challenge_for(evidence, os.urandom)
    assert challenge is not None
    activation = challenge.activation({"secret": b64u(challenge.secret)})
    verdict = tee.appraise(binding_raw=binding, evidence=[evidence], activation=activation)
    assert isinstance(verdict, Refused)
    assert verdict.codes == ("ak_attributes",)
    # The TPM itself will not sign such a message with the restricted key.
    with pytest.raises(UnavailableError):
        tpm.tool("sign", "-c", "work/ak.ctx", "-g", "sha256", "-o", "work/t.sig", "work/t.msg")
    tpm.tool("flushcontext", "-t")


def test_measuring_again_changes_nothing_and_other_parts_are_refused(tee: RealTee) -> None:
    assert tee.attester.measure(tee.parts) == tee.measurement()
    assert isinstance(tee.appraise(), AppraisedEvidence)
    with pytest.raises(RuntimeError, match="already given other parts"):
        tee.attester.measure({"model": tee.measurement()})


def test_a_restarted_tpm_keeps_its_endorsement_and_forgets_its_registers(
    tmp_path: Path, tee: RealTee
) -> None:
    """Also: a second TPM runs beside the session's, in a folder whose path is too long for a
    socket, under a shared CA, and nothing appears outside its folders."""
    deep = tmp_path / ("d" * 100) / "tpm"
    ca = tmp_path / "ca"
    first = TpmAttester(deep, ca)
    try:
        first.measure(tee.parts)
        before = parse_body(first.attest(b"binding", 0).body)
        process = first._tpm._process
    finally:
        first.close()
    assert process is not None
    assert process.poll() is not None
    second = TpmAttester(deep, ca)
    try:
        with pytest.raises(RuntimeError, match="measure the worker first"):
            second.attest(b"binding", 0)
        assert second.measure(tee.parts) == tee.measurement()
        after = parse_body(second.attest(b"binding", 0).body)
    finally:
        second.close()
    assert (after.ek.raw, after.ek_cert) == (before.ek.raw, before.ek_cert)
    assert after.ak.raw != before.ak.raw
    assert after.pcrs[11] == before.pcrs[11]
    assert {path.name for path in tmp_path.iterdir()} == {"d" * 100, "ca"}


def test_tpms_made_at_once_under_one_ca_share_a_root_and_no_key(
    tmp_path: Path, attester: TpmAttester
) -> None:
    del attester  # skips where there is no simulator
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda name: TpmAttester(tmp_path / name, tmp_path / "ca"), "ab")
        one, two = made
    try:
        assert one.trust_anchor() == two.trust_anchor()
        bodies = []
        for tpm in (one, two):
            tee = RealTee(tpm)
            tpm.measure(tee.parts)
            verdict = tee.appraise()
            assert isinstance(verdict, AppraisedEvidence), verdict
            bodies.append(parse_body(tee.evidence(tee.binding()).body))
        assert bodies[0].ek.raw != bodies[1].ek.raw
        assert bodies[0].ek_cert != bodies[1].ek_cert
        assert bodies[0].chain == bodies[1].chain
    finally:
        one.close()
        two.close()


def test_missing_programs_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="found no swtpm, swtpm_setup") as caught:
        TpmAttester(tmp_path / "tpm")
    assert "apt-get install" in caught.value.hint
    assert not (tmp_path / "tpm").exists()


def test_a_tpm_whose_state_is_damaged_does_not_start(tmp_path: Path, attester: TpmAttester) -> None:
    assert attester.kind == "tpm2"
    (tmp_path / "tpm").mkdir()
    (tmp_path / "tpm" / "tpm2-00.permall").write_bytes(b"damaged")
    (tmp_path / "ca").mkdir()
    with pytest.raises(UnavailableError, match=r"swtpm|tpm2"):
        TpmAttester(tmp_path, tmp_path / "ca")


def test_a_tpm_that_cannot_be_certified_is_not_half_made(
    tmp_path: Path, attester: TpmAttester
) -> None:
    assert attester.kind == "tpm2"
    (tmp_path / "ca").mkdir()
    for name in ("signkey.pem", "issuercert.pem", "swtpm-localca-rootca-cert.pem"):
        (tmp_path / "ca" / name).write_text("damaged")
    with pytest.raises(UnavailableError, match="swtpm_setup: found exit 1, expected 0"):
        TpmAttester(tmp_path, tmp_path / "ca")
    assert not (tmp_path / "tpm").exists()


_OWNER = """
import sys
from pathlib import Path
from attestation.collect.swtpm import SimulatedTpm
tpm = SimulatedTpm(Path(sys.argv[1]), Path(sys.argv[2]))
print(tpm._process.pid, flush=True)
sys.stdin.read()
"""


def test_the_tpm_dies_with_its_owner_even_when_that_is_killed(
    tmp_path: Path, attester: TpmAttester
) -> None:
    assert attester.kind == "tpm2"
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path / "tpm"), str(tmp_path / "ca")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 -- /proc
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_session_is_not_in_the_simulators_time(tee: RealTee) -> None:
    """Guards the fixture: real certificates are judged at the real time, not at a constant."""
    assert tee.now != NOW


def _signature(evidence: Evidence) -> bytes:
    import json

    return unb64u(json.loads(evidence.body)["sig"])
