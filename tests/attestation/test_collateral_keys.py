"""Keys are of closed forms: nothing in evidence or from a client can say where to ask."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import collateral_key as keys
from attestation.collateral.services import (
    PCCS_ROOT_CRL,
    Services,
    origin,
    parse_services,
)
from attestation.collateral.vendors import Vendors
from attestation.collateral.view import rests_on
from attestation.collateral_key import SOURCES, CollateralKey, parse_key
from wire.errors import ConfigError, MalformedError

FMSPC = bytes.fromhex("00806f050000")
CHIP = bytes(range(64))
GOOD = [
    keys.dcap("tdx", FMSPC, "platform"),
    keys.dcap("sgx", FMSPC, "processor", early=True),
    keys.tcb_info("tdx", FMSPC),
    keys.tcb_info("sgx", FMSPC, early=True),
    keys.qe_identity("tdx"),
    keys.qe_identity("sgx", early=True),
    keys.pck_crl("platform"),
    keys.root_crl(),
    CollateralKey("intel-pcs", "pck-chain/processor"),
    CollateralKey("intel-pcs", "root/platform"),
    keys.vcek("Milan", CHIP, (4, 0, 24, 219)),
    keys.vcek("Genoa", CHIP, (10, 0, 23, 84)),
    keys.vcek("Turin", CHIP[:8], (1, 1, 1, 4, 81)),
    keys.amd("chain", "vlek", "Milan"),
    keys.amd("ca", "vcek", "Genoa"),
    keys.amd("root", "vcek", "Turin"),
    keys.amd("crl", "vcek", "Genoa"),
    keys.rim("NV_GPU_DRIVER_GH100_550.90.07"),
    keys.ocsp("sha384", bytes(48), bytes(48), 0x10),
    keys.ocsp("sha1", bytes(20), bytes(20), 1),
    keys.jwks("nvidia-nras"),
]


@pytest.mark.parametrize("key", GOOD, ids=str)
def test_a_key_reads_back_from_its_text(key: CollateralKey) -> None:
    assert parse_key(str(key)) == key


@pytest.mark.parametrize("key", GOOD, ids=str)
def test_every_question_goes_to_a_configured_origin_and_path(key: CollateralKey) -> None:
    services = Services()
    vendors = Vendors(services, bytes)
    for stored in rests_on(key):
        request = vendors.request(stored, bytes(32))
        assert origin(request.url) in services.origins()
        assert ".." not in request.url


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("intel-pcs", "tcb/tdx/00806F050000"),
        ("intel-pcs", "tcb/tdx/00806f0500"),
        ("intel-pcs", "tcb/tdx/00806f050000/late"),
        ("intel-pcs", "tcb/tdx/00806f050000\n"),
        ("intel-pcs", "tcb/tdx/00806f050000&update=early"),
        ("intel-pcs", "qe/tdx/../../x"),
        ("intel-pcs", "pck-crl/root"),
        ("intel-pcs", "https://pcs.example/"),
        ("amd-kds", f"vcek/Genoa/{'00' * 64}/1.0.2"),
        ("amd-kds", f"vcek/Genoa/{'00' * 64}/1.0.2.256"),
        ("amd-kds", f"vcek/Genoa/{'00' * 64}/01.0.2.3"),
        ("amd-kds", f"vcek/Genoa/{'00' * 8}/1.0.2.3"),
        ("amd-kds", f"vcek/Turin/{'00' * 64}/1.1.0.2.3"),
        ("amd-kds", f"vcek/Turin/{'00' * 8}/1.0.2.3"),
        ("amd-kds", f"vcek/Venice/{'00' * 64}/1.0.2.3"),
        ("amd-kds", "chain/asvk/Genoa"),
        ("nvidia-rim", "rim/../admin"),
        ("nvidia-rim", "rim/a/b"),
        ("nvidia-rim", "rim/.hidden"),
        ("nvidia-rim", "rim/a?b"),
        ("nvidia-rim", "rim/" + "a" * 129),
        ("nvidia-ocsp", f"ocsp/md5/{'00' * 16}/{'00' * 16}/1"),
        ("nvidia-ocsp", f"ocsp/sha384/{'00' * 32}/{'00' * 48}/1"),
        ("nvidia-ocsp", f"ocsp/sha384/{'00' * 48}/{'00' * 48}/0"),
        ("nvidia-ocsp", f"ocsp/sha384/{'00' * 48}/{'00' * 48}/-1"),
        ("jwks", "jwks/https://evil.example"),
        ("jwks", "jwks/NRAS"),
        ("evil", "tcb/tdx/00806f050000"),
        ("amd-kds", "tcb/tdx/00806f050000"),
    ],
)
def test_any_other_form_is_refused(source: str, key: str) -> None:
    with pytest.raises(MalformedError):
        CollateralKey(source, key)


@given(st.sampled_from(SOURCES), st.text(max_size=60))
def test_arbitrary_text_is_a_key_or_malformed(source: str, text: str) -> None:
    try:
        assert CollateralKey(source, text).key == text
    except MalformedError:
        return


BAD_FIELDS: dict[str, Any] = {
    "product": lambda: keys.vcek("../x", CHIP, (1, 2, 3, 4)),
    "level": lambda: keys.vcek("Genoa", CHIP, (1, 2, 3, -4)),
    "chip": lambda: keys.vcek("Genoa", CHIP[:8], (1, 2, 3, 4)),
    "fmspc": lambda: keys.dcap("tdx", FMSPC[:5], "platform"),
    "serial": lambda: keys.ocsp("sha384", bytes(48), bytes(48), -5),
    "id": lambda: keys.rim("a b"),
    "issuer": lambda: keys.jwks(""),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_of_evidence_that_does_not_fit_makes_no_key(name: str) -> None:
    with pytest.raises(MalformedError):
        BAD_FIELDS[name]()


def test_a_composed_key_rests_on_the_parts_of_its_own_platform_and_policy() -> None:
    vendors = Vendors(Services(), bytes)
    for early, word in ((False, "standard"), (True, "early")):
        found = rests_on(keys.dcap("tdx", FMSPC, "processor", early=early))
        assert found == (
            keys.tcb_info("tdx", FMSPC, early=early),
            keys.qe_identity("tdx", early=early),
            keys.pck_crl("processor"),
            keys.root_crl(),
        )
        urls = [vendors.request(key, bytes(32)).url for key in found]
        assert urls == [
            "https://api.trustedservices.intel.com/tdx/certification/v4/tcb"
            f"?fmspc=00806f050000&update={word}",
            f"https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity?update={word}",
            "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl"
            "?ca=processor&encoding=der",
            "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        ]


def test_amds_and_nvidias_questions_are_spelled_as_their_services_want_them() -> None:
    vendors = Vendors(Services(), bytes)
    wanted = {
        keys.vcek("Genoa", CHIP, (10, 0, 23, 84)): (
            f"https://kdsintf.amd.com/vcek/v1/Genoa/{CHIP.hex()}"
            "?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84"
        ),
        keys.amd("chain", "vlek", "Milan"): "https://kdsintf.amd.com/vlek/v1/Milan/cert_chain",
        keys.amd("crl", "vcek", "Turin"): "https://kdsintf.amd.com/vcek/v1/Turin/crl",
        keys.rim("NV_A.1"): "https://rim.attestation.nvidia.com/v1/rim/NV_A.1",
        keys.jwks("nvidia-nras"): "https://nras.attestation.nvidia.com/.well-known/jwks.json",
    }
    assert {key: vendors.request(key, bytes(32)).url for key in wanted} == wanted


def test_schemes_name_collateral_without_loading_what_fetches_it() -> None:
    # The worker's process loads the schemes and must hold no network client.
    code = (
        "import sys, attestation.schemes; print([m for m in sys.modules if m == 'httpx2'"
        " or m.startswith('attestation.collateral.') and m != 'attestation.collateral_key'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ addresses


def test_the_defaults_are_the_vendors_own_over_https() -> None:
    assert {scheme for scheme, _, _ in Services().origins()} == {"https"}


@pytest.mark.parametrize("name", ["intel_pcs", "intel_root_crl", "amd_kds", "nvidia_ocsp"])
@pytest.mark.parametrize(
    "url",
    [
        "http://pccs.example",
        "http://10.0.0.1:8081",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "ftp://pccs.example",
        "file:///etc/passwd",
        "https://",
        "https://user@pccs.example",
        "https://pccs.example/?x=1",
        "https://pccs.example/#x",
        "https://pccs.example:99999",
        "https://pccs.example\r\nx: y",
        "https://[pccs",
        "pccs.example",
        "",
    ],
)
def test_an_address_that_is_not_https_or_loopback_is_refused(name: str, url: str) -> None:
    with pytest.raises(ConfigError):
        Services(**{name: url})


def test_plain_http_is_for_loopback() -> None:
    assert Services(intel_pcs="http://127.0.0.1:8081").intel_pcs == "http://127.0.0.1:8081"
    assert Services(amd_kds="http://[::1]:8081").amd_kds == "http://[::1]:8081"


def test_a_pccs_stands_for_intel_and_its_root_list() -> None:
    found = parse_services({"pccs": "https://pccs.example:8081/", "ca_file": "ca.pem"})
    assert found.intel_pcs == "https://pccs.example:8081"
    assert found.intel_root_crl == "https://pccs.example:8081" + PCCS_ROOT_CRL


@pytest.mark.parametrize(
    "document",
    [
        {"verify_tls": False},
        {"insecure": True},
        {"pccs": "https://a.example", "intel_pcs": "https://b.example"},
        {"jwks": "https://a.example"},
        {"jwks": {"NRAS": "https://a.example"}},
        {"jwks": {"nras": "http://a.example"}},
        {"jwks": {"nras": 1}},
        {"jwks": {f"i{n}": "https://a.example" for n in range(33)}},
        {"amd_kds": 7},
        [],
    ],
)
def test_a_services_file_has_a_closed_schema_without_a_switch_for_tls(document: Any) -> None:
    with pytest.raises(ConfigError):
        parse_services(document)


def test_an_issuer_that_is_not_configured_has_no_address() -> None:
    vendors = Vendors(Services(jwks={}), bytes)
    with pytest.raises(ConfigError, match="no address"):
        vendors.request(keys.jwks("nvidia-nras"), bytes(32))
