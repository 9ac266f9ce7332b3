"""How up to date an Intel platform is, by Intel's two signed statements, verified before.

Steps:
 1. the platform's level is the first listed one whose 16 SGX components, PCESVN and, for TDX, TDX
    components are all met. Where TEE_TCB_SVN[1] is not 0, its first two numbers are the module's
    own version and are judged in step 2 instead;
 2. TDX: the module is signed by whom the statement names, has its attributes, and, where
    TEE_TCB_SVN[1] names a module, meets the first listed level of that module;
 3. TDX 1.5 also reports what runs now (TEE_TCB_SVN2): that too must have a level. Where only what
    ran at launch is out of date, the status is to relaunch the TD; otherwise the worse of both;
 4. the quoting enclave is the one that the identity describes and meets a level of it;
 5. the statuses converge to the worst; advisories add up. A quoting enclave that is neither up to
    date nor revoked is out of date, and no relaunch mends that.

Reason codes: `tcb_level_not_found` (1, 2, 3, 4), `tdx_module_mismatch` (2, 3),
`qe_identity_mismatch` (4), `tcb_revoked` (5): keys of a revoked level are known to others, so
nothing they sign is proof.

Source: Intel TDX and SGX DCAP quote verification library's documentation of TCB status.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Final

from attestation.formats.dcap_bodies import TdReport
from attestation.formats.intel_statements import STATUSES
from wire.errors import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.formats.dcap_bodies import EnclaveReport
    from attestation.formats.dcap_quote import Quote
    from attestation.formats.intel_statements import Level, Module, QeIdentity, TcbInfo
    from attestation.formats.pck import Pck

_refused: Final = partial(refused, about="TCB")
_OUT_OF_DATE: Final = "OutOfDate"
_OUT_OF_DATE_CONFIGURATION: Final = "OutOfDateConfigurationNeeded"
_RELAUNCH: Final = "TDRelaunchAdvised"
_RELAUNCH_CONFIGURATION: Final = "TDRelaunchAdvisedConfigurationNeeded"
_OLD: Final = (_OUT_OF_DATE, _OUT_OF_DATE_CONFIGURATION)

VERDICTS: Final = (*STATUSES[:4], _RELAUNCH, _RELAUNCH_CONFIGURATION, *STATUSES[4:])


@dataclass(frozen=True, slots=True)
class TcbVerdict:
    """How up to date platform, TDX module and quoting enclave are.

    Attributes:
        status: converged, one of `VERDICTS`.
        lenient, lenient_advisories: the same as Intel's newest library and dcap-qvl have it. They
            pass over a quoting enclave in need of configuration, and over what runs now unless the
            TD was launched out of date, its advisories always. Nowhere are they stricter.
        platform, module, qe: each one's own; `module` is None where none is named.
        advisories: identifiers of all three, sorted.
        date: when the platform's level was published, as text.
        eval_number: the lower TCB evaluation number of the two statements.
        outdated_since: Unix second at which something newer than what runs here was published;
            None where nothing was.
    """

    status: str
    lenient: str
    lenient_advisories: frozenset[str]
    platform: str
    module: str | None
    qe: str
    advisories: tuple[str, ...]
    date: str
    eval_number: int
    outdated_since: int | None

    def claims(self) -> dict[str, Any]:
        """Values by their public names."""
        return {
            "tcb_status": self.status,
            "platform_tcb_status": self.platform,
            "tdx_module_status": self.module,
            "qe_tcb_status": self.qe,
            "advisory_ids": list(self.advisories),
            "tcb_date": self.date,
            "tcb_eval_number": self.eval_number,
        }


def evaluate(quote: Quote, pck: Pck, info: TcbInfo, identity: QeIdentity) -> TcbVerdict:
    """The platform's verdict (steps 1 to 5).

    Raises:
        AttestationError: the codes above.
    """
    td = quote.body if isinstance(quote.body, TdReport) else None
    launched = b"" if td is None else td.tee_tcb_svn
    platform, module = _platform(pck, info, launched), None  # step 1
    launch = now = platform.status
    found = [(platform, info.levels)]
    running: list[tuple[Level, tuple[Level, ...]]] = []
    if td is not None:
        module = _module(td, info, launched)  # step 2
        if module is not None:
            found.append(module)
            launch = now = converge(launch, module[0].status)
        if td.tee_tcb_svn2:  # a TDX 1.0 report does not say what runs now
            running = _running(td, pck, info)  # step 3
            now = reduce(converge, (level.status for level, _ in running))
    qe = _quoting_enclave(quote.qe_report, identity)  # step 4
    found.append((qe, identity.levels))
    relaunch = launch in _OLD and now not in (*_OLD, "Revoked")
    status = launch if relaunch else converge(launch, now)
    lenient = _relaunch(launch, now) if relaunch else launch
    if qe.status in ("UpToDate", "Revoked") or status == "Revoked":  # step 5
        status = converge(lenient if relaunch else status, qe.status)
    else:
        status = converge(status, _OUT_OF_DATE)
        if qe.status == _OUT_OF_DATE:
            lenient = converge(launch, _OUT_OF_DATE)
    if status == "Revoked":
        raise _refused("tcb_revoked", "found a revoked level: its keys are known to others")
    theirs = frozenset(name for level, _ in found for name in level.advisories)
    found += running
    newer = [since for level, levels in found if (since := _superseded(level, levels)) is not None]
    return TcbVerdict(
        status=status,
        lenient=lenient,
        lenient_advisories=theirs,
        platform=platform.status,
        module=None if module is None else module[0].status,
        qe=qe.status,
        advisories=tuple(sorted({name for level, _ in found for name in level.advisories})),
        date=platform.date,
        eval_number=min(info.eval_number, identity.eval_number),
        outdated_since=min(newer, default=None),
    )


def converge(platform: str, other: str) -> str:
    """The status of two together: the worst, and out of date as well where either is."""
    pair = (platform, other)
    if _OUT_OF_DATE in pair and any("Configuration" in status for status in pair):
        return _OUT_OF_DATE_CONFIGURATION
    return max(pair, key=VERDICTS.index)


def _running(
    td: TdReport, pck: Pck, info: TcbInfo
) -> list[tuple[Level, tuple[Level, ...]]]:  # step 3
    """The levels of what runs now, with those they are among."""
    module = _module(td, info, td.tee_tcb_svn2)
    platform = _platform(pck, info, td.tee_tcb_svn2), info.levels
    return [platform] if module is None else [platform, module]


def _relaunch(launch: str, now: str) -> str:
    return _RELAUNCH_CONFIGURATION if "Configuration" in launch + now else _RELAUNCH


def _platform(pck: Pck, info: TcbInfo, tdx: bytes) -> Level:
    for level in info.levels:
        if not _meets(pck.components, level.components) or pck.pcesvn < level.svn:
            continue
        if tdx:
            if not level.tdx_components:
                raise _refused("tcb_level_not_found", "found a level without TDX components")
            first = 2 if tdx[1] > 0 else 0
            if not _meets(tdx[first:], level.tdx_components[first:]):
                continue
        return level
    raise _refused("tcb_level_not_found", f"the platform meets none of {len(info.levels)} levels")


def _module(td: TdReport, info: TcbInfo, tdx: bytes) -> tuple[Level, tuple[Level, ...]] | None:
    svn, version = tdx[0], tdx[1]
    if info.module is None:
        raise _refused("tdx_module_mismatch", "the TCB info describes no TDX module")
    if version == 0:
        _same_module(td, info.module)
        return None
    name = f"TDX_{version:02X}"
    module = next((item for item in info.modules if item.id.upper() == name), None)
    if module is None:
        raise _refused("tdx_module_mismatch", f"the TCB info describes no module {name}")
    _same_module(td, module)
    for level in module.levels:
        if svn >= level.svn:
            return level, module.levels
    raise _refused("tcb_level_not_found", f"{name}: found version {svn}, below every level")


def _same_module(td: TdReport, module: Module) -> None:
    if td.mr_signer_seam != module.mrsigner:
        raise _refused("tdx_module_mismatch", "the TDX module is signed by another")
    # Bits outside the mask have no agreed meaning, so none may be set.
    if not _same(td.seam_attributes, module.attributes, module.mask) or (
        _number(td.seam_attributes) & ~_number(module.mask)
    ):
        raise _refused("tdx_module_mismatch", "the TDX module has other attributes")


def _quoting_enclave(report: EnclaveReport, identity: QeIdentity) -> Level:
    if (
        report.mrsigner != identity.mrsigner
        or report.isvprodid != identity.isvprodid
        # Intel publishes MISCSELECT as a number; in the report it stands low byte first.
        or not _same(report.miscselect[::-1], identity.miscselect, identity.miscselect_mask)
        or not _same(report.attributes, identity.attributes, identity.attributes_mask)
    ):
        raise _refused("qe_identity_mismatch", "the quoting enclave is not the one described")
    for level in identity.levels:
        if report.isvsvn >= level.svn:
            return level
    raise _refused("tcb_level_not_found", f"quoting enclave: {report.isvsvn} is below every level")


def _superseded(level: Level, levels: Sequence[Level]) -> int | None:
    return min((other.since for other in levels if other.since > level.since), default=None)


def _meets(have: Sequence[int], least: Sequence[int]) -> bool:
    return all(mine >= theirs for mine, theirs in zip(have, least, strict=True))


def _same(have: bytes, wanted: bytes, mask: bytes) -> bool:
    """Whether two values of one length, which their parsers saw to, have the mask's bits alike."""
    return not (_number(have) ^ _number(wanted)) & _number(mask)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")
