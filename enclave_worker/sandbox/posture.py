"""Collects the fields of the posture record: what confinement did, and what the host looks like.

The record itself (encoding, signature, comparison with a policy) is `attestation.posture`.
"""

import errno
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from attestation.posture import CONTROLS, Control

from . import memory
from .memory import SecretBytes
from .outcome import applied, refused, unavailable

__all__ = ("FIELDS", "collect", "host_facts")

FIELDS = CONTROLS  # every record has all of these


def collect(
    *stages: Mapping[str, Control], secrets: Iterable[SecretBytes] = ()
) -> Mapping[str, Control]:
    """Merge what the stages of `confine` returned with the memory probe, in :data:`FIELDS` order.

    A field no stage reported is `unavailable` ("not attempted"), so leaving a stage out weakens the
    record instead of shortening it. May be called after the filter is in place: opens nothing.
    """
    found: dict[str, Control] = {}
    for stage in (*stages, memory.probe(secrets)):
        found.update(stage)
    unknown = set(found) - set(FIELDS)
    if unknown:
        raise ValueError(f"not posture fields: {sorted(unknown)}")
    missing = unavailable(0, "not attempted")
    return {field: found.get(field, missing) for field in FIELDS}


def host_facts() -> Mapping[str, Control]:
    """Facts nobody sets here but a policy may ask for. Reads /proc: call before Landlock."""
    return {
        "yama": _yama(),
        "swap": _swap(),
        "ro_root": _read_only_root(),
        "uid": _outer_uid(),
        "kernel": applied(platform.release()),
        # Write-xor-execute for memory breaks oneDNN, which compiles its kernels when first used.
        "mdwe": refused(0, "left off: kernels are compiled at run time"),
    }


def _yama() -> Control:
    """Yama scope 1 or more: no tracing by unrelated processes of the same user."""
    try:
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii"))
    except OSError as error:
        return unavailable(error.errno or errno.EIO)
    return applied(str(scope)) if scope >= 1 else refused(0, "scope 0")


def _swap() -> Control:
    """Applied when the host has no swap: the weights and prompts are not locked, only seeds are."""
    try:
        areas = len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) - 1
    except OSError as error:
        return unavailable(error.errno or errno.EIO)
    return applied("none") if areas <= 0 else unavailable(0, f"{areas} swap areas")


def _read_only_root() -> Control:
    try:
        read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
    except OSError as error:
        return unavailable(error.errno or errno.EIO)
    return applied() if read_only else unavailable(0, "root is writable; Landlock decides")


def _outer_uid() -> Control:
    """Applied when the user outside the user namespace is not root (a mapped 0 is not power)."""
    own = os.geteuid()
    outer = own
    try:
        rows = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError as error:
        return unavailable(error.errno or errno.EIO)
    for row in rows:
        inside, outside, count = map(int, row.split())
        if inside <= own < inside + count:
            outer = outside + own - inside
    return applied(str(outer)) if outer else unavailable(0, "host root")
