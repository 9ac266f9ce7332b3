"""Checks a saved receipt without any network, for example years later, by somebody else.

    python examples/verify_offline.py receipt.json policy.json

Exit code: 0 ok, 2 invalid, 3 genuine but below the policy, 4 unreadable.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from anchorhold import parse_policy, verify_bundle


def main(receipt: str, policy: str) -> int:
    """Verify and print every check."""
    now = int(datetime.now(tz=UTC).timestamp())
    report = verify_bundle(Path(receipt).read_bytes(), parse_policy(Path(policy).read_bytes()), now)
    print("\n".join(report.lines()))
    return int(report.exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
