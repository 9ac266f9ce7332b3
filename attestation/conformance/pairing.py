"""CPU and GPU evidence in one sample: which file is which side's, and what a rule may call them.

A sample is of one kind. Evidence of the other side stands beside it, under a role that the kind
does not have: it reads as such evidence, or has its outline, or the words of the role's name say
so. Whoever writes an index names such files freely, and a GPU that went unnoticed would be one that
nobody asked the CPU about. Only verdicts, manifests and firmware logs stand for no CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.formats.dcap_quote import parse_quote
from attestation.formats.detached_eat import parse_bundle
from attestation.formats.gpu_list import parse_list
from attestation.formats.hcl_report import parse_hcl_report
from attestation.formats.jose import parse_token
from attestation.formats.nitro import parse_document
from attestation.formats.snp import parse_report as parse_snp_report
from attestation.formats.spdm import parse_report as parse_spdm_report
from attestation.formats.tpm_quote import parse_tpm_quotes
from attestation.formats.tpm_structures import parse_quote as parse_tpm_quote
from wire.errors import AttestationError, MalformedError

from .binding_rule import EXPECTED, bare
from .wrapped import contents, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set

    from attestation.scheme import Scheme

GPU_KINDS: Final = (
    "nvidia-gpu-spdm",
    "nvidia-gpu-spdm-list",
    "nvidia-nvswitch-spdm",
    "nvidia-nras-eat",
)
_NO_CPUS: Final = ("ear-jwt", "corim", "tcg-event-log")
GPU_WORDS: Final = frozenset({"gpu", "gpus", "nvidia", "spdm", "nvswitch", "nras"})
CPU_WORDS: Final = frozenset(
    {"cpu", "tee", "td", "tdx", "snp", "sev", "sgx", "nitro", "hcl", "quote", "report", "document"}
    | {"tpm", "vtpm"}
)
# Beside evidence, not evidence; unless it reads as such.
_AUXILIARY: Final = frozenset(
    {"chain", "cert", "certs", "certificate", "certificates", "root", "roots", "ca", "crl", "ocsp"}
    | {"rim", "nonce", "key", "keys", "jwk", "jwks", "keyset", "policy", "collateral", "log"}
    | {"notes"}
)
_REVOCATION: Final = frozenset(
    {"crl", "crls", "ocsp", "revocation", "revocations", "revoked", "denylist"}
)
_LISTS: Final = frozenset({"evidence_list", "evidences", "device_evidence_list", "detached_eat"})
_DEVICE: Final = frozenset({"evidence", "certificate"})
_HEX_REPORT: Final = "attestationReportHexStr"  # no other tool has such a name
_NRAS_CLAIM: Final = "x-nvidia-"
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_HASHES: Final = {"hash": "sha256", "digest": "sha256"} | {name: name for name in _ALGORITHMS}
_USUAL: Final = "gpu_evidence"  # what a rule may call it, whatever its role
_EVIDENCE: Final = "_evidence"  # a rule may say it where a role does not
GPU_PARSERS: Final = (parse_spdm_report, parse_list, parse_bundle)
_WORD: Final = re.compile(r"[a-z]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Pair:
    """Evidence of a CPU and of GPUs in one sample.

    Attributes:
        gpus: role to bytes of the GPUs' side; at least one.
    """

    gpus: Mapping[str, bytes]

    def values(self) -> dict[str, bytes]:
        """What a binding rule may name: the evidence, and its digests under the names in use."""
        found = {_USUAL: next(iter(self.gpus.values()))}
        for role, data in self.gpus.items():
            found |= {role: data, role.removesuffix(_EVIDENCE) + _EVIDENCE: data}
        # Each file is hashed once, under however many names it goes.
        digests = {data: _digests(data) for data in set(self.gpus.values())}
        return found | {
            f"{name}_{word}": digests[data][algorithm]
            for name, data in found.items()
            for word, algorithm in _HASHES.items()
        }

    def all_in(self, terms: Set[bytes]) -> bool:
        """Whether each GPU's evidence, or a digest of it, is among what a rule names."""
        return all(
            data in terms or not terms.isdisjoint(_digests(data).values())
            for data in self.gpus.values()
        )

    def any_in(self, terms: Set[bytes]) -> bool:
        """Whether one of them is."""
        return any(Pair({role: data}).all_in(terms) for role, data in self.gpus.items())

    def contradicted(self, inputs: Mapping[str, Any]) -> bool:
        """Whether an input states another digest of GPU evidence than the one that is here.

        A rule takes the input's: it would bind the CPU to GPUs that nobody showed.
        """
        ours = self.values()
        for name, value in inputs.items():
            key = name.removesuffix("_hex").removeprefix(EXPECTED)
            if key in ours and key.endswith(tuple(_HASHES)):
                stated = bare(value).lower() if isinstance(value, str) else value
                if stated != ours[key].hex():
                    return True
        return False


def pair_of(scheme: Scheme, files: Mapping[str, bytes]) -> Pair | None:
    """The two sides in a sample's files; None if there is one only.

    Args:
        scheme: of the sample's kind.
        files: role to bytes.
    """
    own = {*scheme.evidence[0], *scheme.evidence[1]}
    beside = set(files) - own - set(scheme.collateral)
    if scheme.kind in GPU_KINDS:
        mine = {role: files[role] for role in sorted(own & set(files)) if "chain" not in role}
        return Pair(mine) if mine and any(_of_cpu(role, files[role]) for role in beside) else None
    if scheme.kind in _NO_CPUS:
        return None
    gpus = {role: files[role] for role in sorted(beside) if _of_gpu(role, files[role])}
    return Pair(gpus) if gpus else None


def is_revocation(role: str) -> bool:
    """Whether a file says what is revoked, by its role's name."""
    return bool(_REVOCATION & words_of(role))


def words_of(role: str) -> set[str]:
    """The words of a role's name, however they are joined."""
    return set(_WORD.findall(_HUMP.sub("_", role).lower()))


def _digests(data: bytes) -> dict[str, bytes]:
    return {name: hashlib.new(name, data).digest() for name in _ALGORITHMS}


def _of_cpu(role: str, data: bytes) -> bool:
    words = words_of(role)
    cpus = (parse_quote, parse_snp_report, parse_document, parse_hcl_report)
    if _reads(data, (*cpus, parse_tpm_quote, _parse_tpm_message)):
        return True
    return bool(CPU_WORDS & words) and not (GPU_WORDS | _AUXILIARY) & words


def _of_gpu(role: str, data: bytes) -> bool:
    words = words_of(role)  # no CPU's kind calls a role "evidence", and some GPU's do
    if any(_reads(part, GPU_PARSERS) or outlined(part) for part in contents(data)):
        return True
    if _AUXILIARY & words:
        return False
    return bool(GPU_WORDS & words) or ("evidence" in words and not CPU_WORDS & words)


def _parse_tpm_message(data: bytes) -> None:
    parse_tpm_quotes({"attestation_pb": data})


def outlined(data: bytes) -> bool:
    """Whether it is a list of devices or a remote service's word on them, though not a whole one.

    A part that does not parse makes it no less the evidence of a GPU.
    """
    with contextlib.suppress(MalformedError):
        claims = parse_token(data).claims
        return any(name.startswith(_NRAS_CLAIM) for name in claims)
    with contextlib.suppress(MalformedError):
        return has_outline(opened(data))
    return False


def has_outline(doc: object) -> bool:
    """The same of JSON that is read already."""
    if isinstance(doc, dict):
        return not doc.keys().isdisjoint(_LISTS) or _is_device(doc)
    if isinstance(doc, list) and doc:
        entries = [item for item in doc if isinstance(item, dict)]
        head = doc[0] if isinstance(doc[0], list) else []
        return head[:1] == ["JWT"] or any(map(_is_device, entries))
    return False


def _is_device(item: Mapping[str, Any]) -> bool:
    return item.keys() >= _DEVICE or _HEX_REPORT in item


def _reads(data: bytes, parsers: Iterable[Callable[[bytes], object]]) -> bool:
    for parse in parsers:
        with contextlib.suppress(MalformedError, AttestationError):
            parse(data)
            return True
    return False
