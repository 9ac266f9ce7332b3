"""`anchorhold pool run | measure | status | load | unload`: several models on one machine."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.cli_options import add_command
from client.cli_terminal import note, say
from wire.errors import AnchorholdError

from .pool_config import read_pool
from .pool_socket import PoolSocket, ask

if TYPE_CHECKING:
    import argparse

    from .pool import Pool
from .progress import progress_bar

EXAMPLES = """\
anchorhold pool run --config pool.toml
anchorhold pool load qwen3-0.6b --config pool.toml"""
EXITS = """\
exit codes: 0 ok, 4 unreadable or usage, 130 interrupted,
            1 no pool, a refusal, a worker that failed, or a defect"""
EXIT_FAILED = 1


def register(subparsers: Any) -> None:
    """Add the `pool` command; each subcommand sets `run`, which takes the parsed arguments."""
    pool = add_command(subparsers, "pool", "run several models, a worker each", EXAMPLES, EXITS)
    commands = pool.add_subparsers(dest="pool_command", required=True, metavar="COMMAND")
    for name, run, text, model in (
        ("run", _run, "start the pool and the models that are to be loaded", ""),
        ("measure", _measure, "print what a policy must name for each model", ""),
        ("status", _status, "print how each model is", ""),
        ("load", _load, "have the running pool load a model", "NAME"),
        ("unload", _unload, "have the running pool unload a model", "NAME"),
    ):
        example = f"anchorhold pool {name}{' qwen3-0.6b' if model else ''} --config pool.toml"
        command = add_command(commands, name, text, example, EXITS)
        if model:
            command.add_argument("model", metavar=model, help="the model's name in the settings")
        command.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="the pool's TOML settings"
        )
        if name in ("status", "measure"):
            command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run, failure_code=EXIT_FAILED)


def _run(arguments: argparse.Namespace) -> int:
    """Run `pool run`: until SIGINT or SIGTERM."""
    from .pool import Pool  # torch with it, which `status`, `load` and `unload` do without

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    config = read_pool(arguments.config)
    pool = Pool(config)
    listener = PoolSocket(pool, config.socket)
    status = 0
    try:
        for name, pooled in config.models.items():
            if pooled.load and not over.is_set():
                status = max(status, _start(pool, name))
        note(f"anchorhold pool: ready, {_loaded(pool)} of {len(pool.names)} models loaded")
        over.wait()
        note("anchorhold pool: stopping")
    finally:
        listener.close()
        pool.stop()
    return status


def _start(pool: Pool, name: str) -> int:
    """Load one model of the settings; the others are not held up by its failure."""
    try:
        with progress_bar() as report:
            measurement = pool.load(name, lambda *step: report(f"{name}: {step[0]}", *step[1:]))
    except AnchorholdError as error:
        note(f"anchorhold pool: {name}: {error.message}")
        if error.hint:
            note(f"hint: {error.hint}")
        return EXIT_FAILED
    note(f"anchorhold pool: {name}: loaded, {measurement}")
    return 0


def _loaded(pool: Pool) -> int:
    return sum(status.state == "loaded" for status in pool.status())


def _measure(arguments: argparse.Namespace) -> int:
    """Run `pool measure`."""
    from .pool import Pool

    pool = Pool(read_pool(arguments.config))
    found = {}
    with progress_bar() as report:
        for name in pool.names:
            found[name] = dict(pool.measure(name, report))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for name, parts in found.items():
            say(f"{name}\n  measurement {parts['measurement']}\n  root        {parts['root']}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    """Run `pool status`."""
    answer = ask(read_pool(arguments.config).socket, {"do": "status"}, lambda *_: None)
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return 0
    for model in answer:
        memory = f", {-(-model['memory'] >> 20)} MiB" if model["memory"] else ""
        say(f"{model['name']}: {model['state']}, worker {model['worker']}{memory}")
        if model["failure"]:
            say(f"  {model['failure']}")
    return 0


def _load(arguments: argparse.Namespace) -> int:
    """Run `pool load`."""
    path = read_pool(arguments.config).socket
    with progress_bar() as report:
        answer = ask(path, {"do": "load", "model": arguments.model}, report)
    say(f"{arguments.model}: loaded, {answer['measurement']}")
    return 0


def _unload(arguments: argparse.Namespace) -> int:
    """Run `pool unload`."""
    path = read_pool(arguments.config).socket
    ask(path, {"do": "unload", "model": arguments.model}, lambda *_: None)
    say(f"{arguments.model}: unloaded")
    return 0
