"""The two moments of confinement; why in this order: ``docs/adr/0004-sandbox-order.md``.

1. the launcher wraps the command (:func:`namespaces.wrap_command`);
2. the worker calls :func:`confine_early` before anything starts a thread;
3. it imports torch, loads weights, creates its event loop and runs one warm-up per shape;
4. it calls :func:`confine_late`, then :func:`posture.collect`, and signs the record.

After step 4 the process opens no file and no socket, starts no program and no process; it infers,
and talks over descriptors it holds or receives over them.
"""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from attestation.posture import Control

from . import landlock, limits, namespaces, posture, seccomp

__all__ = ("confine_early", "confine_late")

# Executors (`asyncio.to_thread`), tracebacks, text codecs: each would fail only in the
# middle of some later request.
_IMPORTED_ON_FIRST_USE = (
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "traceback",
)


def confine_early(
    read_paths: Iterable[Path],
    *,
    wrapper: str = "none",
    parent_namespaces: Mapping[str, str] | None = None,
) -> Mapping[str, Control]:
    """Limits, then Landlock. Call in the main thread while it is the only one.

    Args:
        read_paths: what the worker may still read (staged root, its targets, the model folder);
            system libraries are added by `landlock.SYSTEM_READ`.
        wrapper: the name :func:`namespaces.wrap_command` returned to the launcher.
        parent_namespaces: :func:`namespaces.namespace_ids` of the launcher, to compare with.

    Returns:
        The controls by posture field; none of them raises, each says how it ended.
    """
    # Facts come first: Landlock closes most of /proc to this process too.
    controls = dict(posture.host_facts())
    controls.update(namespaces.probe(parent_namespaces, wrapper))
    controls.update(limits.apply_limits())
    controls.update(landlock.restrict(read_paths))
    return controls


def confine_late() -> Mapping[str, Control]:
    """The system-call filter, on every thread that exists by now. Call after the warm-up.

    From here on an import fails with EPERM: whatever is imported on first use must have been used
    in the warm-up. What the standard library itself imports lazily is loaded here.
    """
    for module in _IMPORTED_ON_FIRST_USE:
        importlib.import_module(module)
    return seccomp.install()
