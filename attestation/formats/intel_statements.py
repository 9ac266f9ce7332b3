"""What Intel signs about platforms (TCB info v3) and quoting enclaves (QE identity v2). Parse only.

Signatures cover the exact bytes of the text. It must be what a strict reader accepts (no key twice,
nothing around it), and keys of other versions are refused: a field that is not understood could be
a condition that is not met.

Source: Intel SGX and TDX Provisioning Certification Service API v4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestation.members import Members
from wire.canonical import parse_strict

from .pck import COMPONENTS

SIGNED_MAX: Final = 128 * 1024  # the longest TCB info published is under 32 KiB
LEVELS_MAX: Final = 128
MODULES_MAX: Final = 32
ADVISORIES_MAX: Final = 256
SVN_MAX: Final = 0xFFFF

STATUSES: Final = (  # of a platform, from best to worst
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
MODULE_STATUSES: Final = ("UpToDate", "OutOfDate", "Revoked")
# Of a quoting enclave: Intel publishes the same three, its libraries know two more.
QE_STATUSES: Final = (*MODULE_STATUSES, "ConfigurationNeeded", "OutOfDateConfigurationNeeded")

_COMPONENT: Final = frozenset({"svn", "category", "type"})
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class Level:
    """One TCB level: the least that a platform, module or enclave must have for its status.

    Attributes:
        components, tdx_components: least security version numbers; () where it has none.
        svn: least PCESVN of a platform, least ISVSVN of a module or enclave.
        date: when this level was published, as text; since: the same in Unix seconds.
        status: one of `STATUSES`.
        advisories: Intel's identifiers of what it is open to.
    """

    components: tuple[int, ...]
    tdx_components: tuple[int, ...]
    svn: int
    date: str
    since: int
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """One TDX module identity; `id` is "" for the base module, which has no levels."""

    id: str
    mrsigner: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """Levels of one platform family; `issued` and `expires` in Unix seconds."""

    id: str
    issued: int
    expires: int
    fmspc: bytes
    pceid: bytes
    eval_number: int
    module: Module | None
    modules: tuple[Module, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """What a genuine quoting enclave looks like; `issued` and `expires` in Unix seconds."""

    id: str
    issued: int
    expires: int
    eval_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[Level, ...]


def parse_tcb_info(text: bytes) -> TcbInfo:
    """The TCB info in its signed text.

    Raises:
        MalformedError: another version, or any deviation from it.
    """
    where = "TCB info"
    members = Members(
        parse_strict(text, max_bytes=SIGNED_MAX),
        where,
        required=(
            "id", "version", "issueDate", "nextUpdate", "fmspc", "pceId", "tcbType",
            "tcbEvaluationDataNumber", "tcbLevels",
        ),
        optional=("tdxModule", "tdxModuleIdentities"),
    )  # fmt: skip
    members.integer("version", 3, 3)
    members.integer("tcbType", 0, 0)
    return TcbInfo(
        id=_word(members, "id", ("SGX", "TDX")),
        issued=_time(members, "issueDate"),
        expires=_time(members, "nextUpdate"),
        fmspc=_fixed(members, "fmspc", 6),
        pceid=_fixed(members, "pceId", 2),
        eval_number=members.integer("tcbEvaluationDataNumber"),
        module=_module(members.value("tdxModule"), base=True) if "tdxModule" in members else None,
        modules=tuple(_module(item) for item in members.array("tdxModuleIdentities", MODULES_MAX)),
        levels=tuple(_platform_level(item) for item in members.array("tcbLevels", LEVELS_MAX)),
    )


def parse_qe_identity(text: bytes) -> QeIdentity:
    """The quoting enclave identity in its signed text.

    Raises:
        MalformedError: another version, or any deviation from it.
    """
    members = Members(
        parse_strict(text, max_bytes=SIGNED_MAX),
        "QE identity",
        required=(
            "id", "version", "issueDate", "nextUpdate", "tcbEvaluationDataNumber", "miscselect",
            "miscselectMask", "attributes", "attributesMask", "mrsigner", "isvprodid", "tcbLevels",
        ),
    )  # fmt: skip
    members.integer("version", 2, 2)
    return QeIdentity(
        id=_word(members, "id", ("QE", "TD_QE", "QVE")),
        issued=_time(members, "issueDate"),
        expires=_time(members, "nextUpdate"),
        eval_number=members.integer("tcbEvaluationDataNumber"),
        miscselect=_fixed(members, "miscselect", 4),
        miscselect_mask=_fixed(members, "miscselectMask", 4),
        attributes=_fixed(members, "attributes", 16),
        attributes_mask=_fixed(members, "attributesMask", 16),
        mrsigner=_fixed(members, "mrsigner", 32),
        isvprodid=members.integer("isvprodid", 0, SVN_MAX),
        levels=tuple(
            _svn_level(item, QE_STATUSES) for item in members.array("tcbLevels", LEVELS_MAX)
        ),
    )


def _platform_level(item: object) -> Level:
    members = _level(item)
    tcb = Members(
        members.value("tcb"),
        "TCB info.tcb",
        required=("sgxtcbcomponents", "pcesvn"),
        optional=("tdxtcbcomponents",),
    )
    return _made(
        members,
        tcb.integer("pcesvn", 0, SVN_MAX),
        _components(tcb, "sgxtcbcomponents"),
        _components(tcb, "tdxtcbcomponents") if "tdxtcbcomponents" in tcb else (),
    )


def _components(tcb: Members, key: str) -> tuple[int, ...]:
    found = []
    for item in tcb.array(key, COMPONENTS, COMPONENTS):
        # By hand: there are hundreds of these in every statement, and `Members` costs more.
        svn = item.get("svn") if type(item) is dict and item.keys() <= _COMPONENT else None
        if type(svn) is not int or not 0 <= svn <= SVN_MAX:
            raise tcb.fail(key, f"{COMPONENTS} components with an svn of 0 to {SVN_MAX}")
        found.append(svn)
    return tuple(found)


def _module(item: object, *, base: bool = False) -> Module:
    where = "TDX module identity"
    fields = ("mrsigner", "attributes", "attributesMask")
    members = Members(item, where, required=fields if base else ("id", *fields, "tcbLevels"))
    return Module(
        id="" if base else members.text("id", 16),
        mrsigner=_fixed(members, "mrsigner", 48),
        attributes=_fixed(members, "attributes", 8),
        mask=_fixed(members, "attributesMask", 8),
        levels=tuple(
            _svn_level(level, MODULE_STATUSES) for level in members.array("tcbLevels", LEVELS_MAX)
        ),
    )


def _svn_level(item: object, statuses: tuple[str, ...]) -> Level:
    members = _level(item)
    tcb = Members(members.value("tcb"), "tcbLevels.tcb", required=("isvsvn",))
    _word(members, "tcbStatus", statuses)
    return _made(members, tcb.integer("isvsvn", 0, SVN_MAX), (), ())


def _level(item: object) -> Members:
    return Members(
        item, "tcbLevels", required=("tcb", "tcbDate", "tcbStatus"), optional=("advisoryIDs",)
    )


def _made(members: Members, svn: int, components: tuple[int, ...], tdx: tuple[int, ...]) -> Level:
    return Level(
        components=components,
        tdx_components=tdx,
        svn=svn,
        date=members.text("tcbDate", 20),
        since=_time(members, "tcbDate"),
        status=_word(members, "tcbStatus", STATUSES),
        advisories=members.texts("advisoryIDs", ADVISORIES_MAX),
    )


def _word(members: Members, key: str, words: tuple[str, ...]) -> str:
    word = members.text(key, 48)
    if word not in words:
        raise members.fail(key, " or ".join(words))
    return word


def _time(members: Members, key: str) -> int:
    text = members.text(key, 20)
    try:
        if _TIME.fullmatch(text):
            return int(datetime.fromisoformat(text).timestamp())
    except ValueError:  # the 31st of February
        pass
    raise members.fail(key, "a time such as 2025-06-19T10:16:03Z")


def _fixed(members: Members, key: str, length: int) -> bytes:
    return hexed(members, key, length, length)


def hexed(members: Members, key: str, low: int, high: int) -> bytes:
    """A member in hex.

    Raises:
        MalformedError: no hex, or not `low` to `high` bytes of it.
    """
    value: Any = members.value(key)
    if isinstance(value, str) and 2 * low <= len(value) <= 2 * high:
        try:
            data = bytes.fromhex(value)
        except ValueError:
            data = b""
        if 2 * len(data) == len(value):  # `fromhex` skips white space
            return data
    raise members.fail(key, f"{low} to {high} bytes in hex")
