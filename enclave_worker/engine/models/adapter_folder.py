"""The adapters of a model folder and whose they are: `adapters/NAME`, measured with the model."""

import re
from dataclasses import dataclass
from pathlib import Path

from enclave_worker.engine.errors import ModelError, RequestInvalid

from .folder import read_json

FOLDER, ADAPTERS_MAX = "adapters", 64
CONFIG, WEIGHTS, TENANTS = "adapter_config.json", "adapter_model.safetensors", "tenants.json"
TENANTS_MAX, HANDLE_MAX = 4096, 256
# No colon: a request names MODEL:ADAPTER.
# One answer for what is not there and what is somebody else's: nobody learns names by asking.
REFUSED = "adapter: found a name that this model does not have for this tenant"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """One adapter of a model folder, not read yet.

    Attributes:
        path: its folder.
        tenants: handles of those who may use it; None for everybody.
    """

    path: Path
    tenants: frozenset[str] | None

    def check(self, tenant: str) -> None:
        """Refuse a tenant that is not on the list (RequestInvalid)."""
        if self.tenants is not None and tenant not in self.tenants:
            raise RequestInvalid(REFUSED)


def list_adapters(model: Path) -> dict[str, AdapterFolder]:
    """The adapters of a model folder by name, sorted; raises ModelError for anything else there."""
    root = model / FOLDER
    found = sorted(root.iterdir()) if root.exists() else []
    if len(found) > ADAPTERS_MAX:
        raise ModelError(f"{FOLDER}: found {len(found)}, expected at most {ADAPTERS_MAX}")
    for path in found:
        if not _NAME.fullmatch(path.name) or not path.is_dir():
            raise ModelError(f"{FOLDER}: found {path.name!r}, expected folders of {_NAME.pattern}")
        if extra := sorted({p.name for p in path.iterdir()} - {CONFIG, WEIGHTS, TENANTS}):
            raise ModelError(f"adapter {path.name}: found {extra[0]!r}, which nobody reads")
    return {path.name: AdapterFolder(path, _tenants(path / TENANTS)) for path in found}


def _tenants(path: Path) -> frozenset[str] | None:
    """The handles that tenants.json lists; None without the file. What is unclear opens nothing."""
    if not path.exists():
        return None
    document = read_json(path)
    listed = document.get("tenants")
    if (
        set(document) != {"tenants"}
        or not isinstance(listed, list)
        or not 1 <= len(listed) <= TENANTS_MAX
        or not all(isinstance(t, str) and 1 <= len(t) <= HANDLE_MAX for t in listed)
        or len(set(listed)) != len(listed)
    ):
        expected = f'{{"tenants": [...]}} with 1 to {TENANTS_MAX} handles, none twice'
        raise ModelError(f"adapter {path.parent.name}: {TENANTS}: expected {expected}")
    return frozenset(listed)
