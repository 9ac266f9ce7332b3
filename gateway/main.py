"""The gateway process: read the configuration, serve until a signal, leave nothing behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from evidence.note import NoteSigner
from tenancy.key_table import open_or_create, pepper_path
from wire.errors import ConfigError
from wire.ids import b64u

from .config import GatewayConfig, load_config
from .descriptors import make_room
from .journal import configure_logging
from .runtime import Gateway
from .server import running
from .signing_keys import ensure_signing_key, load_signing_key

#: Exit codes: a configuration that cannot be used is the user's to repair, a defect is ours.
EXIT_OK = 0
EXIT_DEFECT = 1
EXIT_CONFIG = 4


def serve(config: GatewayConfig) -> int:
    """Serve until SIGINT or SIGTERM, or until a part fails that must not; returns the exit code.

    Raises:
        AnchorholdError: it cannot start; the message says why and the hint what to do.
    """
    configure_logging()
    make_room()
    return asyncio.run(_serve(config))


async def _serve(config: GatewayConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as serving:
        sys.stdout.write(f"gateway for {config.aud} listens on {serving.url}\n")
        sys.stdout.flush()
        return await until_ended(serving.gateway, stop)


async def until_ended(gateway: Gateway, stop: asyncio.Event) -> int:
    """Wait until the gateway should end, and return the exit code that says why."""
    loop = asyncio.get_running_loop()
    ends = {loop.create_task(event.wait()) for event in (stop, gateway.failed)}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in ends:
        task.cancel()
    if not gateway.failed.is_set():
        return EXIT_OK
    sys.stderr.write("anchorhold gateway: defect: see the line gateway.failed; it ends itself\n")
    return EXIT_DEFECT


def initialise(config: GatewayConfig) -> dict[str, object]:
    """Create what is missing (folders, keys, key table) and say what policies must pin.

    Raises:
        ConfigError: something cannot be created, or exists and is not what it should be.
    """
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"state_dir: cannot make {config.state_dir}: {error.strerror}",
            hint="name a folder that this user may make or write to",
        ) from error
    ensure_signing_key(config.path("log_key_file", "log.key"))
    ensure_signing_key(config.path("directory_key_file", "directory.key"))
    ensure_signing_key(config.path("result_key_file", "result.key"))
    table = config.path("key_table_file", "keys.json")
    open_or_create(table, os.urandom, config.pepper_file or pepper_path(table))
    return anchors(config)


def anchors(config: GatewayConfig) -> dict[str, object]:
    """The public keys a tenant's policy pins: members `aud`, `directory` and `log` of a policy.

    Raises:
        ConfigError: a key file is missing or not a key.
    """
    log_key = load_signing_key(config.path("log_key_file", "log.key"))
    directory_key = load_signing_key(config.path("directory_key_file", "directory.key"))
    public = b64u(directory_key.public_key().public_bytes_raw())
    return {
        "aud": config.aud,
        "directory": {"keys": [{"kid": config.directory_kid, "alg": "ed25519", "pk": public}]},
        "log": {
            "origin": config.origin,
            "vkeys": [NoteSigner(config.origin, log_key).vkey],
        },
    }


def run(config_path: Path, *, init: bool = False) -> int:
    """The command line's entry.

    Raises:
        AnchorholdError: as `serve` and `initialise`; the command line says it, with a hint.
    """
    try:
        config = load_config(config_path)
        if not init:
            return serve(config)
        sys.stdout.write(json.dumps(initialise(config), indent=2) + "\n")
    except ConfigError as error:
        error.hint = error.hint or "docs/operate/gateway.md lists every setting"
        raise
    return EXIT_OK
