"""The compiled kernels: which library this processor can run, and its C interface for ctypes.

The libraries lie in `native/` beside their sources, compiled when the package was built. Nothing
here compiles, and a library is only used after it proved itself (`selftest`).
"""

import ctypes
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from enclave_worker.engine.config import EngineConfig, Kernels
from enclave_worker.engine.errors import KernelError

from .abi import ABI, FUNCTIONS

FOLDER = Path(__file__).parent / "native"
CPUINFO = Path("/proc/cpuinfo")
# Instruction sets, the fastest first, and what the kernel must list for each.
# fmt: off
_NEEDS: Mapping[str, frozenset[str]] = {
    "avx512": frozenset((
        "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "fma",
    )),
    "generic": frozenset(),
}
# fmt: on
_REBUILD = "install the package where there is a C++ compiler (see engine/ops/native/README.md)"


class Library:
    """One loaded library; its functions are `call["ah_..."]`, and let other threads run meanwhile.

    Attributes:
        name: of the instruction set.
        digest: "sha256:" tag of the file.
        call: the C functions by name.
    """

    def __init__(self, name: str, path: Path) -> None:
        """Load and check the interface; raises KernelError, says found and expected."""
        self.name = name
        try:
            self.digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            loaded = ctypes.CDLL(str(path))
            self.call = {function: getattr(loaded, function) for function in FUNCTIONS}
        except (OSError, AttributeError) as error:
            what = type(error).__name__
            raise KernelError(f"{path.name}: found no kernels ({what}), expected some") from None
        for function, (returns, *takes) in FUNCTIONS.items():
            self.call[function].restype, self.call[function].argtypes = returns, takes
        if (found := self.call["ah_abi"]()) != ABI:
            raise KernelError(f"{path.name}: found interface {found}, expected {ABI}; {_REBUILD}")
        if not self.call["ah_supported"]():
            raise KernelError(f"{path.name}: found another processor, expected one with {name}")


def library_path(name: str, folder: Path = FOLDER) -> Path:
    """Where the library of an instruction set lies."""
    return folder / f"anchorhold-{name}.so"


def supported(folder: Path = FOLDER, cpuinfo: Path = CPUINFO) -> list[str]:
    """Instruction sets that have a library and that this processor runs, the fastest first."""
    flags: set[str] = set()
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                break
    runs = [name for name, needs in _NEEDS.items() if needs <= flags]
    return [name for name in runs if library_path(name, folder).is_file()]


def candidates(config: EngineConfig, folder: Path = FOLDER) -> list[str]:
    """Instruction sets to try for a configuration, the best first; none where torch computes.

    Raises:
        KernelError: native kernels are asked for, or needed by the dtype, and there are none.
    """
    gpu = config.device == "cuda"
    if config.kernels == "triton" and not gpu:
        raise KernelError("engine kernels: found 'triton' on device 'cpu', expected 'cuda'")
    for other, why in (
        (config.dtype == "float32", "dtype float32, and they compute in bfloat16, w8a8 or w8a16"),
        (config.back_end != "anchorhold", f"back_end {config.back_end}, which has its own"),
        (gpu, "device cuda, and they compute on the processor"),
    ):
        if other and config.kernels not in ("auto", "reference", "triton"):
            raise KernelError(
                f"engine kernels: found {config.kernels!r}, expected 'auto' or 'reference' "
                f"with {why}"
            )
        if other:
            return []
    if config.kernels == "reference":
        return []
    found, wanted = supported(folder), config.kernels.removeprefix("native-")
    chosen = [name for name in found if wanted in (name, "auto", "native")]
    if not chosen and (config.kernels != "auto" or config.dtype != "bfloat16"):
        expected = "native ones" if wanted in ("auto", "native") else config.kernels
        raise KernelError(
            f"engine kernels: found {', '.join(found) or 'none'} for this processor, expected "
            f"{expected} (dtype {config.dtype}); {_REBUILD}"
        )
    return chosen


def settle(config: EngineConfig, folder: Path = FOLDER) -> EngineConfig:
    """Name what will compute, before a worker is measured; raises KernelError.

    Nothing is loaded: a worker whose library then fails its self-test does not start.
    """
    best = next(iter(candidates(config, folder)), None)
    name = "reference" if best is None else f"native-{best}"
    if config.device == "cuda" and config.back_end == "anchorhold" and config.kernels != name:
        there = importlib.util.find_spec("triton") is not None
        if config.kernels == "triton" and not there:
            raise KernelError("engine kernels: found no package triton, expected it installed")
        name = "triton" if there else name
    return replace(config, kernels=cast("Kernels", name))


def check_settled(config: EngineConfig) -> None:
    """Refuse to run a worker whose measured configuration leaves open what computes."""
    if config.kernels in ("auto", "native"):
        raise KernelError(
            f"engine kernels: found {config.kernels!r}, expected the launcher to name a library"
        )
