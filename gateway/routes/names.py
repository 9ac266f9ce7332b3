"""Names in a query, such as of a model: what no name can be is no question."""

from gateway.errors import Fault, Refusal
from wire.limits import NAME_MAX


def check_name(parameter: str, text: str | None) -> None:
    """Check a parameter that names something; None where it is not given.

    Raises:
        Refusal: empty, too long, or with characters that no name has, such as NUL.
    """
    if text is not None and not (1 <= len(text) <= NAME_MAX and text.isprintable()):
        raise Refusal(
            Fault.BAD_QUERY, f"{parameter}: 1 to {NAME_MAX} printable characters expected"
        )
