"""SNP reports: what does not parse, and reports that do not belong to their certificate.

A simulated AMD signs each report after the one lie in it, so that only the lie is wrong.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.amd import Amd
from simulators.snp_report import signature, tcb
from simulators.verdicts import codes

from attestation.examined import NO_BYTES, Expected
from attestation.formats.certificate_table import parse_table
from attestation.formats.pem import certificates
from attestation.formats.snp import REPORT_LEN, parse_report
from attestation.registers import host_data_value
from attestation.rules import snp_state
from attestation.schemes import snp as scheme
from attestation.schemes.snp import SCHEME, carries
from attestation.verify import crl
from attestation.verify import snp as verify
from attestation.verify.snp import P384_ORDER
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from attestation.examined import Examined


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd("Genoa")


def examined(amd: Amd, **lies: Any) -> Examined:
    return SCHEME.examine(amd.question(amd.chip().evidence(**lies)))


def test_no_report_is_no_evidence(amd: Amd) -> None:
    found = SCHEME.examine(amd.question(NO_BYTES))
    assert found.facts is None
    assert codes(found) == {"evidence_malformed"}


@pytest.mark.parametrize("n", [0, 1, 0x29F, 0x2A0, 0x330, REPORT_LEN - 1, REPORT_LEN + 1, 4096])
def test_a_report_of_another_length_is_refused(amd: Amd, n: int) -> None:
    raw = amd.chip().report().ljust(n, b"\0")[:n]
    found = SCHEME.examine(amd.question({"report": raw}))
    assert codes(found) == {"evidence_malformed"}


@pytest.mark.parametrize("version", [0, 1, 6, 2**32 - 1])
def test_an_unknown_version_is_refused(amd: Amd, version: int) -> None:
    assert codes(examined(amd, version=version)) == {"version_not_accepted"}
    with pytest.raises(MalformedError):
        parse_report(amd.chip().report(version=version))


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_each_known_version_is_authentic(amd: Amd, version: int) -> None:
    found = examined(amd, version=version)
    assert found.authentic is True
    assert (found.claims["cpuid_fam_mod_step"] is None) is (version == 2)
    assert ("launch_mit_vector" in found.claims) is (version == 5)


@pytest.mark.parametrize(
    ("version", "at"),
    [
        *((5, at) for at in (0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F)),
        *((old, at) for old in (3, 4) for at in (0x1F8, 0x207)),
        *((2, at) for at in (0x188, 0x18A)),
    ],
)
def test_a_reserved_byte_that_is_set_is_refused(amd: Amd, version: int, at: int) -> None:
    found = examined(amd, version=version, reserved={at: b"\1"})
    assert codes(found) == {"evidence_malformed"}


@pytest.mark.parametrize("at", [0x330, REPORT_LEN - 1])
def test_a_byte_after_the_signature_is_refused(amd: Amd, at: int) -> None:
    raw = bytearray(amd.chip().report())
    raw[at] = 1
    found = SCHEME.examine(amd.question({"report": bytes(raw)}))
    assert codes(found) == {"evidence_malformed"}


@pytest.mark.parametrize("algorithm", [0, 2, 1 << 16])
def test_an_unknown_signature_algorithm_is_refused(amd: Amd, algorithm: int) -> None:
    assert codes(examined(amd, signature_algo=algorithm)) == {"evidence_malformed"}


@pytest.mark.parametrize("flags", [2 << 2, 6 << 2, 1 << 5, 1 << 31])
def test_an_unknown_signing_key_or_flag_is_refused(amd: Amd, flags: int) -> None:
    assert codes(examined(amd, flags=flags)) == {"evidence_malformed"}


def test_a_providers_key_signs_where_the_chips_own_is_out_of_use(amd: Amd) -> None:
    """MASK_CHIP_KEY is about the VCEK: a cloud that hands out a VLEK may well set it."""
    collateral = amd.collateral("vlek")
    chip = amd.provider()
    found = SCHEME.examine(amd.question(chip.evidence(flags=1 << 2 | 1 << 1), collateral))
    assert (found.reasons, found.claims["mask_chip_key"]) == ((), True)


@pytest.mark.parametrize("flags", [7 << 2, 1 << 1, 1 << 1 | 7 << 2])
def test_a_report_that_says_it_is_not_signed_is_refused(amd: Amd, flags: int) -> None:
    assert codes(examined(amd, flags=flags)) == {"signing_key_none"}


def test_a_report_without_a_signature_is_refused(amd: Amd) -> None:
    chip = amd.chip()
    raw = chip.report(flags=7 << 2)[:0x2A0] + bytes(512)
    found = SCHEME.examine(amd.question({**chip.evidence(), "report": raw}))
    assert codes(found) == {"signing_key_none", "signature_invalid"}


def test_a_vcek_that_a_report_calls_a_vlek_is_refused(amd: Amd) -> None:
    assert codes(examined(amd, flags=1 << 2)) == {"signing_key_mismatch"}
    evidence = amd.provider().evidence(flags=0)
    found = SCHEME.examine(amd.question(evidence, amd.collateral("vlek")))
    assert codes(found) == {"signing_key_mismatch"}


R, S = 5, 7
N = 2**384 - 1388124618062372383947042015309946732620727252194336364173  # FIPS 186-4, D.1.2.4


def test_the_order_of_the_curve_is_the_standards() -> None:
    assert P384_ORDER == N


@pytest.mark.parametrize(
    ("r", "s"),
    [(0, S), (R, 0), (N, S), (R, N), (N + 1, S), (R, N + 1), (1 << 384, S), (R, 1 << 575)],
)
def test_a_signature_number_out_of_range_is_refused(amd: Amd, r: int, s: int) -> None:
    chip = amd.chip()
    raw = chip.report()[:0x2A0] + signature(r, s)
    found = SCHEME.examine(amd.question({**chip.evidence(), "report": raw}))
    assert codes(found) == {"signature_invalid"}


def test_a_signature_with_the_order_added_is_refused(amd: Amd) -> None:
    chip = amd.chip()
    raw = chip.report()
    r, s = (int.from_bytes(raw[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    for forged in (signature(r + N, s), signature(r, s + N)):
        found = SCHEME.examine(amd.question({**chip.evidence(), "report": raw[:0x2A0] + forged}))
        assert codes(found) == {"signature_invalid"}


def test_big_endian_signature_numbers_are_refused(amd: Amd) -> None:
    chip = amd.chip()
    raw = chip.report()
    turned = raw[:0x2A0] + raw[0x2A0:0x2E8][::-1] + raw[0x2E8:0x330][::-1] + raw[0x330:]
    found = SCHEME.examine(amd.question({**chip.evidence(), "report": turned}))
    assert codes(found) == {"signature_invalid"}


def test_the_certificate_of_another_chip_is_refused(amd: Amd) -> None:
    chip = amd.chip(hwid=bytes(range(64)))
    assert codes(SCHEME.examine(amd.question(chip.evidence()))) == {"chip_id_mismatch"}


def test_a_masked_chip_with_a_vcek_is_refused(amd: Amd) -> None:
    assert codes(examined(amd, chip_id=bytes(64))) == {"chip_id_mismatch"}
    chip = amd.chip(hwid=bytes(64))
    found = SCHEME.examine(amd.question(chip.evidence(chip_id=bytes(64))))
    assert codes(found) == {"chip_id_mismatch"}


def test_a_hardware_id_of_another_products_length_is_refused() -> None:
    turin = Amd("Turin")
    own = turin.chip().facts.chip_id
    found = SCHEME.examine(turin.question(turin.chip(hwid=own).evidence()))
    assert codes(found) == {"chip_id_mismatch"}
    genoa = Amd("Genoa")
    chip = genoa.chip(hwid=own[:8])
    found = SCHEME.examine(genoa.question(chip.evidence(chip_id=own)))
    assert codes(found) == {"chip_id_mismatch"}


@pytest.mark.parametrize("component", range(4))
@pytest.mark.parametrize("by", [-1, 1])
def test_a_certificate_for_another_firmware_is_refused(amd: Amd, component: int, by: int) -> None:
    levels = [10, 1, 23, 84]
    certified = list(levels)
    certified[component] += by
    chip = amd.chip(levels, certified)
    assert codes(SCHEME.examine(amd.question(chip.evidence()))) == {"tcb_mismatch"}


def test_the_firmware_of_turins_own_component_counts() -> None:
    turin = Amd("Turin")
    chip = turin.chip((1, 1, 1, 4, 81), (0, 1, 1, 4, 81))
    assert codes(SCHEME.examine(turin.question(chip.evidence()))) == {"tcb_mismatch"}
    levels = turin.extensions((1, 1, 4, 81), hwid=chip.facts.chip_id[:8])  # without it
    chip = turin.chip(extensions=levels)
    assert codes(SCHEME.examine(turin.question(chip.evidence()))) == {"tcb_mismatch"}


def test_a_component_only_turin_has_is_refused_for_another_product(amd: Amd) -> None:
    extensions = amd.extensions((0, 10, 0, 23, 84), hwid=amd.chip().facts.chip_id)
    found = SCHEME.examine(amd.question(amd.chip(extensions=extensions).evidence()))
    assert codes(found) == {"tcb_mismatch"}


@pytest.mark.parametrize("name", ["reported", "current", "committed", "launch"])
def test_a_reserved_byte_of_a_tcb_version_is_refused(amd: Amd, name: str) -> None:
    raw = bytearray(tcb("Genoa", (10, 0, 23, 84)))
    raw[3] = 1
    assert codes(examined(amd, **{f"{name}_tcb": bytes(raw)})) == {"evidence_malformed"}


def test_a_report_whose_cpu_is_of_another_product_is_refused(amd: Amd) -> None:
    assert codes(examined(amd, cpuid=(0x19, 0x01, 1))) == {"product_mismatch"}


@pytest.mark.parametrize("cpu", [(0x19, 0x50, 0), (0x1B, 0x11, 0), (0, 0, 0)])
def test_a_report_of_an_unknown_cpu_is_refused(amd: Amd, cpu: tuple[int, int, int]) -> None:
    assert codes(examined(amd, cpuid=cpu)) == {"product_unknown"}


@pytest.mark.parametrize("cpu", [(0x19, 0x11, 2), (0x19, 0xA0, 1)])
def test_every_cpu_of_a_product_line_is_known(amd: Amd, cpu: tuple[int, int, int]) -> None:
    assert examined(amd, cpuid=cpu).authentic is True


def test_a_version_2_report_is_never_turins() -> None:
    turin = Amd("Turin")
    found = SCHEME.examine(turin.question(turin.chip().evidence(version=2)))
    assert codes(found) == {"product_mismatch"}


@pytest.mark.parametrize("name", ["Genoa", "Genoa-B1", "Siena-A1", "Bergamo-A2"])
def test_a_certificate_may_name_a_zen_4c_part_of_genoas_line(amd: Amd, name: str) -> None:
    honest = amd.extensions((10, 0, 23, 84), hwid=amd.chip().facts.chip_id)
    part = {**honest, "2": bytes((0x16, len(name))) + name.encode()}
    chip = amd.chip(extensions=part)
    found = SCHEME.examine(amd.question(chip.evidence(cpuid=(0x19, 0xA0, 2))))
    assert (found.reasons, found.claims["endorsement_key"]["product"]) == ((), name)


def test_a_zen_4c_part_is_none_of_another_line() -> None:
    turin = Amd("Turin")
    chip = turin.chip()
    honest = turin.extensions((1, 1, 1, 4, 81), hwid=chip.facts.chip_id[:8])
    lie = {**honest, "2": bytes((0x16, 5)) + b"Siena"}
    found = SCHEME.examine(turin.question(turin.chip((1, 1, 1, 4, 81), extensions=lie).evidence()))
    assert codes(found) == {"product_mismatch"}


@pytest.mark.parametrize("name", ["Milan-B0", "Turin", "Siena2", "genoa", "Genoa2"])
def test_a_certificate_that_names_another_product_is_refused(amd: Amd, name: str) -> None:
    honest = amd.extensions((10, 0, 23, 84), hwid=amd.chip().facts.chip_id)
    lie = {**honest, "2": bytes((0x16, len(name))) + name.encode()}
    found = SCHEME.examine(amd.question(amd.chip(extensions=lie).evidence()))
    assert codes(found) == {"product_mismatch"}


def test_claims_are_given_for_refused_reports_too(amd: Amd) -> None:
    found = SCHEME.examine(amd.question({"report": amd.chip().report(vmpl=3)}, NO_BYTES))
    assert found.authentic is False
    assert found.claims["vmpl"] == 3
    assert found.claims["product"] == "Genoa"  # what the CPU says, with no chain to prove it
    assert found.claims["reported_tcb"]["snp"] == 23
    old = SCHEME.examine(amd.question({"report": amd.chip().report(version=2)}, NO_BYTES))
    assert old.claims["product"] is None
    assert old.claims["reported_tcb"] is None  # nothing says what its bytes mean


def test_host_data_carries_the_measurement_and_no_other(amd: Amd) -> None:
    measurement = bytes(range(32))
    facts = examined(amd, host_data=host_data_value(measurement)).facts
    assert carries(facts, measurement) == "HOST_DATA"
    for lie in (measurement, bytes(32)):
        with pytest.raises(AttestationError) as caught:
            carries(examined(amd, host_data=lie).facts, measurement)
        assert caught.value.reasons == ("host_data_mismatch",)


def test_a_nonce_stands_first_in_the_report_data_with_zeros_after_it(amd: Amd) -> None:
    nonce = bytes(range(32))
    evidence = amd.chip().evidence(report_data=nonce.ljust(64, b"\0"))
    assert SCHEME.examine(amd.question(evidence, expected=Expected(nonce=nonce))).bound is True


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=2 * REPORT_LEN),
        st.builds(
            lambda version, rest: version.to_bytes(4, "little") + rest,
            st.sampled_from((2, 3, 4, 5)),
            st.binary(min_size=REPORT_LEN - 4, max_size=REPORT_LEN - 4),
        ),
    )
)
def test_arbitrary_bytes_raise_only_our_errors(raw: bytes) -> None:
    for parse in (parse_report, parse_table, lambda data: certificates(data, "x")):
        with contextlib.suppress(MalformedError):
            parse(raw)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_examination_of_changed_certificates_never_raises(data: st.DataObject) -> None:
    amd = Amd("Genoa")
    roles = {**amd.collateral(crl=amd.crl()), **amd.chip().evidence()}
    role = data.draw(st.sampled_from(sorted(set(roles) - {"report"})))
    changed = bytearray(roles[role])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    found = SCHEME.examine(
        amd.question({"report": roles["report"]}, {**roles, role: bytes(changed)})
    )
    assert found.authentic is (bytes(changed) == roles[role])


def test_every_reason_code_is_documented_and_every_documented_one_raised() -> None:
    modules = (scheme, snp_state, verify, crl)
    source = "\n".join(inspect.getsource(module) for module in modules)
    body = source.replace(scheme.__doc__ or "", "")
    raised = set(re.findall(r"(?:_refused\(\s*|reasons=\()\"([a-z_]+)\"", body))
    table = (scheme.__doc__ or "").partition("Step 5 runs")[0]
    documented = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b|\brevoked\b", table))
    documented |= set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", snp_state.judge.__doc__ or ""))
    assert raised <= documented | {"host_data_mismatch"}
    elsewhere = {"certificate_not_valid_at_time"}  # `verify.x509` raises it
    assert {code for code in documented if f'"{code}"' not in body} == elsewhere
