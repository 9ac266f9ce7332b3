"""The pool's Unix socket: its operator asks for models to be loaded and unloaded.

One request a connection, as a line of JSON: {"do": "load", "model": "NAME"}. Answers are lines:
{"stage", "done", "total"} while it goes on, and at the end {"ok": …} or {"error", "code", "hint"}.
Only the user who runs the pool may connect: the socket lies in a file of mode 0600.
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from wire.errors import AnchorholdError, ConfigError, MalformedError, UnavailableError

if TYPE_CHECKING:  # whoever only asks starts without torch
    from collections.abc import Callable
    from pathlib import Path

    from .pool import Pool
    from .progress import Report

#: A request names a model; a line beyond this is none.
LINE_MAX: Final = 4096
#: Operators at once; each may wait for a model that loads.
ASKERS_MAX: Final = 8
# A connection that says nothing is given up.
ASK_TIMEOUT_S: Final = 10.0


class PoolSocket:
    """Listens for the operator; each connection is served by a thread of its own."""

    def __init__(self, pool: Pool, path: Path) -> None:
        """Listen at `path`; a socket that nobody serves any more is replaced.

        Raises:
            ConfigError: another pool listens there, or the path cannot be used.
        """
        self._pool = pool
        self._path = path
        self._free = threading.Semaphore(ASKERS_MAX)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if path.is_socket():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    if probe.connect_ex(str(path)) == 0:
                        raise ConfigError(
                            f"pool: found another one at {path}, expected none",
                            hint="stop it, or name another state_dir",
                        )
                path.unlink()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._listener.bind(str(path))
            path.chmod(0o600)  # nobody can connect before listen()
            self._listener.listen(ASKERS_MAX)
        except OSError as error:
            self._listener.close()
            raise ConfigError(f"pool socket {path}: {error.strerror or error}") from None
        except BaseException:
            self._listener.close()
            raise
        threading.Thread(target=self._accept, name="pool", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                asker, _ = self._listener.accept()
            except OSError:  # closed
                return
            if not self._free.acquire(blocking=False):
                asker.close()
                continue
            threading.Thread(target=self._serve, args=(asker,), daemon=True).start()

    def _serve(self, asker: socket.socket) -> None:
        lock = threading.Lock()

        def tell(document: dict[str, Any]) -> None:
            # A load goes on when whoever asked for it has gone.
            with lock:
                try:
                    asker.sendall(json.dumps(document).encode() + b"\n")
                except OSError:
                    return

        try:
            with asker:
                asker.settimeout(ASK_TIMEOUT_S)
                try:
                    tell({"ok": self._answer(_read(asker), tell)})
                except AnchorholdError as error:
                    tell({"error": error.message, "code": error.code, "hint": error.hint})
                except Exception as error:
                    tell({"error": f"defect: {type(error).__name__}", "code": "defect", "hint": ""})
        except OSError:
            return
        finally:
            self._free.release()

    def _answer(self, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> Any:
        def report(stage: str, done: int, total: int) -> None:
            tell({"stage": stage, "done": done, "total": total})

        match request:
            case {"do": "status"}:
                return [asdict(status) for status in self._pool.status()]
            case {"do": "load", "model": str(name)}:
                return {"measurement": self._pool.load(name, report)}
            case {"do": "unload", "model": str(name)}:
                return self._pool.unload(name)
            case _:
                raise MalformedError("pool: found an unknown request, expected load or unload")


def ask(path: Path, request: dict[str, Any], report: Report) -> Any:
    """Ask the pool that listens at `path`; returns its answer once it is done.

    Raises:
        UnavailableError: nobody listens there, or it went away.
        AnchorholdError: the pool refused; its words, code and hint.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as pool:
        try:
            pool.connect(str(path))
            pool.sendall(json.dumps(request).encode() + b"\n")
            for line in pool.makefile("rb"):
                answer = json.loads(line)
                if "ok" in answer:
                    return answer["ok"]
                if "error" in answer:
                    raise UnavailableError(
                        answer["error"], code=answer["code"], hint=answer["hint"]
                    )
                report(answer["stage"], answer["done"], answer["total"])
        except (OSError, ValueError, KeyError) as error:
            raise UnavailableError(
                f"pool at {path}: {error}",
                hint="start it with `anchorhold pool run --config FILE`, with the same file",
            ) from None
    raise UnavailableError(f"pool at {path}: found it gone before it had answered")


def _read(asker: socket.socket) -> dict[str, Any]:
    with asker.makefile("rb") as lines:
        line = lines.readline(LINE_MAX)
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise MalformedError("pool: found no JSON object, expected one in a line")
    return request
