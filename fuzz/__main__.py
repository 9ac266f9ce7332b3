"""`python -m fuzz`; the simulated vendors are the tests' own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
