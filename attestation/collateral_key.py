"""What collateral is called: a source and a textual key of closed form, and nothing else.

A key is built from checked fields of evidence (hex, small numbers, closed words). It never holds a
URL, a host or a path: where a source is asked is the operator's configuration alone, so no client
and no evidence can send the verifier to a server of its choice.

Forms (hex is lower case; `<n>` is 0 to 255 in decimal without leading zeros):

| source | key | what `resolve` puts under the role |
| --- | --- | --- |
| intel-pcs | `collateral/<tee>/<fmspc>/<ca>` | JSON of the nine members that quote verifiers take |
| intel-pcs | `collateral/<tee>/<fmspc>/<ca>/early` | the same under the early update policy |
| intel-pcs | `tcb/<tee>/<fmspc>`, and with `/early` | signed TCB info, the JSON as sent |
| intel-pcs | `qe/<tee>`, and with `/early` | signed QE identity, the JSON as sent |
| intel-pcs | `pck-crl/<ca>`, `root-crl` | CRL, DER |
| intel-pcs | `pck-chain/<ca>` | issuers of that PCK CRL, PEM, root last |
| intel-pcs | `root/<ca>` | Intel's root as sent with that PCK CRL, DER |
| amd-kds | `vcek/<product>/<hwid>/<tcb>` | VCEK, DER |
| amd-kds | `chain/<signer>/<product>` | ASK (or ASVK) and ARK, PEM |
| amd-kds | `ca/<signer>/<product>` | ASK (or ASVK) alone, DER |
| amd-kds | `root/<signer>/<product>` | ARK alone, DER |
| amd-kds | `crl/<signer>/<product>` | CRL, DER |
| nvidia-rim | `rim/<id>` | the reference manifest: XML or CoRIM, decoded |
| nvidia-ocsp | `ocsp/<hash>/<issuer name hash>/<issuer key hash>/<serial>` | OCSP response, DER |
| jwks | `jwks/<issuer>` | JSON Web Key Set, as sent |

`<tee>` is sgx or tdx; `<fmspc>` 12 hex digits; `<ca>` processor or platform; `<product>` Milan,
Genoa or Turin; `<signer>` vcek or vlek; `<hwid>` 128 hex digits, for Turin 16; `<tcb>` the levels
joined by dots: `bl.tee.snp.ucode`, for Turin `fmc.bl.tee.snp.ucode`; `<id>` 1 to 128 of
A-Z a-z 0-9 . _ -, not a dot first; `<hash>` sha1, sha256 or sha384, whose length the two hashes
(over the issuer's name and its key bits, as OCSP has it) have; `<serial>` positive, hex without
leading zeros, at most 40 digits; `<issuer>` a name the operator configured, 1 to 64 of a-z 0-9 -.

Build them with the functions here: `Need("endorsement_cert", *named(vcek("Genoa", chip, tcb)))`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from wire.errors import MalformedError
from wire.excerpt import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

INTEL_PCS: Final = "intel-pcs"
AMD_KDS: Final = "amd-kds"
NVIDIA_RIM: Final = "nvidia-rim"
NVIDIA_OCSP: Final = "nvidia-ocsp"
JWKS: Final = "jwks"
KEY_MAX: Final = 320  # the longest, an OCSP key with two SHA-384 hashes, is under 256

_N = r"(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_FORMS: Final = {
    INTEL_PCS: re.compile(
        r"collateral/(?:sgx|tdx)/[0-9a-f]{12}/(?:processor|platform)(?:/early)?"
        r"|tcb/(?:sgx|tdx)/[0-9a-f]{12}(?:/early)?|qe/(?:sgx|tdx)(?:/early)?"
        r"|(?:pck-crl|pck-chain|root)/(?:processor|platform)|root-crl"
    ),
    AMD_KDS: re.compile(
        rf"vcek/(?:Milan|Genoa)/[0-9a-f]{{128}}/{_N}(?:\.{_N}){{3}}"
        rf"|vcek/Turin/[0-9a-f]{{16}}/{_N}(?:\.{_N}){{4}}"
        r"|(?:chain|ca|root|crl)/(?:vcek|vlek)/(?:Milan|Genoa|Turin)"
    ),
    NVIDIA_RIM: re.compile(r"rim/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"),
    NVIDIA_OCSP: re.compile(
        r"ocsp/(?:sha1/[0-9a-f]{40}/[0-9a-f]{40}|sha256/[0-9a-f]{64}/[0-9a-f]{64}"
        r"|sha384/[0-9a-f]{96}/[0-9a-f]{96})/[1-9a-f][0-9a-f]{0,39}"
    ),
    JWKS: re.compile(r"jwks/[a-z0-9-]{1,64}"),
}
SOURCES: Final = tuple(_FORMS)

Tee = Literal["sgx", "tdx"]
Ca = Literal["processor", "platform"]
Signer = Literal["vcek", "vlek"]


@dataclass(frozen=True, slots=True, order=True)
class CollateralKey:
    """One piece of collateral, by name.

    Attributes:
        source: one of `SOURCES`.
        key: text of the closed form of that source.

    Raises:
        MalformedError: the source is unknown, or the key is not of its form.
    """

    source: str
    key: str

    def __post_init__(self) -> None:
        form = _FORMS.get(self.source)
        if form is None:
            raise MalformedError(
                f"collateral source: found {shown(self.source)}, "
                f"expected one of {', '.join(SOURCES)}"
            )
        if len(self.key) > KEY_MAX or form.fullmatch(self.key) is None:
            raise MalformedError(
                f"collateral key: found {shown(self.key)}, expected a form that {self.source} has"
            )

    def __str__(self) -> str:  # type: ignore[explicit-override]  # 3.12's
        return f"{self.source}:{self.key}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The key's fields, its kind first."""
        return tuple(self.key.split("/"))

    @property
    def kind(self) -> str:
        """The first field: what it is (`tcb`, `vcek`, ...)."""
        return self.parts[0]


def named(key: CollateralKey) -> tuple[str, str]:
    """(source, key), as `Need` takes them."""
    return key.source, key.key


def parse_key(text: str) -> CollateralKey:
    """The key that `str` spelled: `<source>:<key>`.

    Raises:
        MalformedError: any other text.
    """
    source, colon, key = text.partition(":")
    if not colon:
        raise MalformedError(f"collateral key: found {shown(text)}, expected <source>:<key>")
    return CollateralKey(source, key)


def dcap(tee: Tee, fmspc: bytes, ca: Ca, *, early: bool = False) -> CollateralKey:
    """All that a quote verifier takes, in one: the nine members as JSON."""
    return CollateralKey(INTEL_PCS, f"collateral/{tee}/{fmspc.hex()}/{ca}{_early(early)}")


def tcb_info(tee: Tee, fmspc: bytes, *, early: bool = False) -> CollateralKey:
    """Intel's signed TCB levels of one platform family."""
    return CollateralKey(INTEL_PCS, f"tcb/{tee}/{fmspc.hex()}{_early(early)}")


def qe_identity(tee: Tee, *, early: bool = False) -> CollateralKey:
    """Intel's signed identity of the quoting enclave."""
    return CollateralKey(INTEL_PCS, f"qe/{tee}{_early(early)}")


def pck_crl(ca: Ca) -> CollateralKey:
    """Revoked platform certificates of one PCK CA."""
    return CollateralKey(INTEL_PCS, f"pck-crl/{ca}")


def root_crl() -> CollateralKey:
    """Intel's revoked intermediates."""
    return CollateralKey(INTEL_PCS, "root-crl")


def vcek(product: str, hwid: bytes, tcb: Sequence[int]) -> CollateralKey:
    """AMD's certificate of one chip at one firmware level.

    Args:
        product: Milan, Genoa or Turin.
        hwid: CHIP_ID as the product's certificates have it: 64 bytes, for Turin its first 8.
        tcb: (bl, tee, snp, ucode), for Turin (fmc, bl, tee, snp, ucode).
    """
    levels = ".".join(str(level) for level in tcb)
    return CollateralKey(AMD_KDS, f"vcek/{product}/{hwid.hex()}/{levels}")


def amd(kind: Literal["chain", "ca", "root", "crl"], signer: Signer, product: str) -> CollateralKey:
    """AMD's certificates and CRL above a VCEK or VLEK."""
    return CollateralKey(AMD_KDS, f"{kind}/{signer}/{product}")


def rim(name: str) -> CollateralKey:
    """NVIDIA's reference manifest of one driver or firmware build."""
    return CollateralKey(NVIDIA_RIM, f"rim/{name}")


def ocsp(hash_name: str, issuer_name: bytes, issuer_key: bytes, serial: int) -> CollateralKey:
    """Whether NVIDIA still stands by one certificate.

    Args:
        hash_name: "sha384" is what NVIDIA's responder is asked with.
        issuer_name: hash of the issuer's subject, DER.
        issuer_key: hash of the issuer's subject public key bits.
        serial: the certificate's serial number.
    """
    cert_id = f"{hash_name}/{issuer_name.hex()}/{issuer_key.hex()}/{serial:x}"
    return CollateralKey(NVIDIA_OCSP, f"ocsp/{cert_id}")


def jwks(issuer: str) -> CollateralKey:
    """Keys of a token issuer, under the name that the operator gave it."""
    return CollateralKey(JWKS, f"jwks/{issuer}")


def _early(early: bool) -> str:
    return "/early" if early else ""
