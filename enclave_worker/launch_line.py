"""What one worker process is started with, stated once: program arguments and environment.

The launcher builds both from here and measures them (parts `args` and `env`); the worker compares
what it really got with the same statement (`complete`). No path of one machine is in it: the
interpreter, the search path and the working folder are measured by content instead.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODULE: Final = "enclave_worker.main"
# The control channel replaces standard input, so the command line is the same on every machine and
# can be measured as it is.
ARGUMENTS: Final = ("--fd", "0")

# A folder below a device file can exist for nobody, root included: no bytecode cache is ever found.
LAUNCH_FLAGS: Final = ("-I", "-S", "-B", "-X", "pycache_prefix=/dev/null/none")
BOOTSTRAP: Final = """\
import sys
import _frozen_importlib_external as loaders
import _imp
extension = (loaders.ExtensionFileLoader, _imp.extension_suffixes())
source = (loaders.SourceFileLoader, loaders.SOURCE_SUFFIXES)
sys.path_hooks[:] = [loaders.FileFinder.path_hook(extension, source)]
sys.path_importer_cache.clear()
sys.path[:] = sys.argv.pop(1).split("\\n")
sys.argv[0] = sys.argv.pop(1)
__import__(sys.argv[0], fromlist=["main"]).main()
"""

_ARGS: Final = b"anchorhold/1 args\0"
_ENV: Final = b"anchorhold/1 env\0"


def environment(threads: int) -> dict[str, str]:
    """The whole environment of a worker with `threads` engine threads.

    Libraries that size themselves from the environment get the same number; PWD is what a wrapper
    that changes into the working folder would set, so that every wrapper gives the same. OpenSSL
    reads its configuration from a folder of the system otherwise, before anything here could look.
    """
    return {
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "MKL_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "OPENSSL_CONF": "/dev/null",
        "PWD": "/",
    }


def arguments_digest(arguments: Sequence[str]) -> str:
    """The part `args`: each argument behind its length, so that none shifts into the next."""
    return _digest(_ARGS, arguments)


def environment_digest(variables: Mapping[str, str]) -> str:
    """The part `env`: names and values, sorted by name."""
    return _digest(_ENV, [text for item in sorted(variables.items()) for text in item])


def _digest(domain: bytes, texts: Sequence[str]) -> str:
    state = hashlib.sha256(domain + len(texts).to_bytes(4, "big"))
    for text in texts:
        encoded = text.encode("utf-8", "surrogateescape")
        state.update(len(encoded).to_bytes(4, "big") + encoded)
    return "sha256:" + state.hexdigest()
