"""Official vectors: absent, their tests are skipped in plain sight, and fail in CI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def vectors() -> Callable[[str], Any]:
    """Loads one JSON file of the vector folder by its relative name."""
    folder = Path(
        os.environ.get("ANCHORHOLD_VECTORS") or CHECKOUT.parent / "shared" / "vectors"
    ).resolve()

    def load(name: str) -> Any:
        path = folder / name
        if not path.is_file():
            missing = f"official vectors are not at {folder} (set ANCHORHOLD_VECTORS)"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        return json.loads(path.read_bytes())

    return load
