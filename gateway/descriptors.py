"""Open files of this process: how many it may have, and how many of them strangers may hold.

A process that has none left cannot read its cache, nor a deny list, nor write its log. Whoever may
connect can hold connections, so all of these together get a part of what there is: a quarter for
workers, a half for HTTP, and the rest is ours.
"""

import resource
from contextlib import suppress

from wire.errors import ConfigError

#: Asked for: all links, four times as many HTTP connections, and what the log, cache and vendors
#: take.
WANTED = 8192
#: Below it, links, requests and the log would take files from each other.
LEAST = 512
#: Connections of workers at once, admitted or not: each unadmitted one may cost an appraisal.
LINKS_MAX = 1024
#: Of all files, what links may take.
_SHARE = 4
#: HTTP connections at once, whoever's: as many as requests may wait by default.
HTTP_MAX = 4096
#: Of all files, what they may take. A request that waits has no other file open.
_HTTP_SHARE = 2


def make_room() -> None:
    """Raise this process's limit towards what it may be; process entry points only.

    Raises:
        ConfigError: it may have too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        # Some systems allow less than they say; then what there is counts.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST:
        raise ConfigError(
            f"open files: a limit of at least {LEAST} expected, found {soft}",
            hint="raise it (ulimit -Hn, or LimitNOFILE of the service)",
        )


def links_max() -> int:
    """Connections of workers that this process can hold and still do its work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LINKS_MAX if soft == resource.RLIM_INFINITY else min(LINKS_MAX, soft // _SHARE)


def http_max() -> int:
    """HTTP connections that this process can hold and still do its work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HTTP_MAX if soft == resource.RLIM_INFINITY else min(HTTP_MAX, soft // _HTTP_SHARE)
