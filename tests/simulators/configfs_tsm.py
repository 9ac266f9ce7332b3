"""A model of the kernel's report and measurement files, for collectors that take `Files`.

Usable by third parties: give `ConfigfsTsm` a `Provider` and hand it to whatever talks to
/sys/kernel/config/tsm/report. It keeps the rules of the real thing, in particular the awkward ones
(drivers/virt/coco/guest/report.c and fs/configfs/file.c):

- `inblob` is stored when its file is closed; a refusal there is silent, only `generation` tells;
- reading `outblob` makes the report, once for every generation, and keeps it;
- `generation` counts the writes of every attribute, and stops one before it would wrap around to
  the generation last read (EBUSY);
- attributes a provider does not have are not there (ENOENT); reading one that is only written, or
  the other way round, is EACCES even for root;
- without a provider, mkdir is ENXIO.

Faults are queued (`fail`) or run at a moment (`when`): another process' write between two of ours.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ULONG = 2**64
INBLOB_MAX = 64
OUTBLOB_MAX = 32 * 1024
PRIVLEVEL_MAX = 3


def kernel_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


@dataclass
class Provider:
    """A driver.

    Attributes:
        name: as the `provider` attribute shows it.
        report: (inblob, privlevel) to (outblob, auxblob); raises OSError as a driver would.
        attributes: optional attributes it shows: auxblob, privlevel, privlevel_floor.
        floor: lowest privlevel it takes.
        inblob_len: what its `report` needs; another length is EINVAL when read.
    """

    name: str
    report: Callable[[bytes, int], tuple[bytes, bytes]]
    attributes: frozenset[str] = frozenset()
    floor: int = 0
    inblob_len: int = 64


@dataclass
class Item:
    """One report folder, with the driver's own state names."""

    write_generation: int = 0
    read_generation: int = 0
    inblob: bytes = b""
    privlevel: int = 0
    outblob: bytes | None = None
    auxblob: bytes = b""

    def advance(self) -> int:
        if self.write_generation == (self.read_generation - 1) % ULONG:
            return errno.EBUSY
        self.write_generation = (self.write_generation + 1) % ULONG
        return 0


@dataclass
class ConfigfsTsm:
    """The files.

    Attributes:
        base: where they are.
        provider: the registered driver, or None.
        items: folders by name.
        calls: every call so far, ("mkdir", name) and ("read" or "write", attribute).
    """

    base: Path
    provider: Provider | None = None
    items: dict[str, Item] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    _faults: dict[tuple[str, str], deque[int]] = field(default_factory=lambda: defaultdict(deque))
    _moments: dict[tuple[str, str], deque[Callable[[Path], None]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    _short: deque[int] = field(default_factory=deque)

    # ------------------------------------------------------------ what a test arranges

    def fail(self, call: str, name: str, number: int, times: int = 1) -> None:
        """The next `times` such calls fail with this errno."""
        self._faults[call, name].extend([number] * times)

    def when(self, call: str, name: str, act: Callable[[Path], None]) -> None:
        """After the next such call, `act` runs with the folder: another process, in that moment."""
        self._moments[call, name].append(act)

    def take_only(self, count: int) -> None:
        """The next write of inblob takes this many bytes."""
        self._short.append(count)

    # ------------------------------------------------------------ Files

    def mkdir(self, path: Path) -> None:
        self._call("mkdir", "", path)
        if path.parent != self.base:
            raise kernel_error(errno.ENOENT, path)
        if self.provider is None:
            raise kernel_error(errno.ENXIO, path)
        if path.name in self.items:
            raise kernel_error(errno.EEXIST, path)
        self.items[path.name] = Item()

    def rmdir(self, path: Path) -> None:
        self._call("rmdir", "", path)
        if path.parent != self.base or path.name not in self.items:
            raise kernel_error(errno.ENOENT, path)
        del self.items[path.name]

    def exists(self, path: Path) -> bool:
        return path == self.base or path.name in self.items

    def read(self, path: Path, limit: int) -> bytes:
        self._call("read", path.name, path)
        item = self._open(path, {"inblob", "privlevel"})
        if path.name == "generation":
            found = b"%d\n" % item.write_generation
        elif path.name == "provider":
            found = b"%s\n" % self._driver(path).name.encode()
        elif path.name == "privlevel_floor":
            found = b"%d\n" % self._driver(path).floor
        else:
            self._generate(item, path)
            found = (item.outblob or b"") if path.name == "outblob" else item.auxblob
            if len(found) > OUTBLOB_MAX:
                raise kernel_error(errno.EFBIG, path)
        self._now("read", path)
        if len(found) > limit:
            raise kernel_error(errno.EFBIG, path)
        return found

    def write(self, path: Path, data: bytes) -> int:
        self._call("write", path.name, path)
        item = self._open(path, {"generation", "provider", "privlevel_floor", "outblob", "auxblob"})
        if path.name == "privlevel":
            self._store_privlevel(item, data, path)
            taken = len(data)
        else:
            taken = self._short.popleft() if self._short else len(data)
            if taken > INBLOB_MAX:
                raise kernel_error(errno.EFBIG, path)
            # On close, and with its result thrown away.
            if item.advance() == 0:
                item.inblob = data[:taken]
        self._now("write", path)
        return taken

    # ------------------------------------------------------------ the driver's side

    def _call(self, call: str, name: str, path: Path) -> None:
        self.calls.append((call, name or path.name))
        if self._faults[call, name]:
            raise kernel_error(self._faults[call, name].popleft(), path)

    def _now(self, call: str, path: Path) -> None:
        if self._moments[call, path.name]:
            self._moments[call, path.name].popleft()(path.parent)

    def _driver(self, path: Path) -> Provider:
        if self.provider is None:
            raise kernel_error(errno.ENXIO, path)
        return self.provider

    def _open(self, path: Path, forbidden: set[str]) -> Item:
        item = self.items.get(path.parent.name)
        shown = {"generation", "provider", "inblob", "outblob"}
        if self.provider is not None:
            shown |= self.provider.attributes
        if item is None or path.parent.parent != self.base or path.name not in shown:
            raise kernel_error(errno.ENOENT, path)
        if path.name in forbidden:
            raise kernel_error(errno.EACCES, path)
        return item

    def _store_privlevel(self, item: Item, data: bytes, path: Path) -> None:
        driver = self._driver(path)
        text = data.decode("ascii").removesuffix("\n")
        if not text.isdigit() or not driver.floor <= int(text) <= PRIVLEVEL_MAX:
            raise kernel_error(errno.EINVAL, path)
        failed = item.advance()
        if failed:
            raise kernel_error(failed, path)
        item.privlevel = int(text)

    def _generate(self, item: Item, path: Path) -> None:
        if not item.inblob:
            raise kernel_error(errno.EINVAL, path)
        if item.outblob is not None and item.read_generation == item.write_generation:
            return
        driver = self._driver(path)
        item.outblob, item.auxblob = None, b""
        if len(item.inblob) != driver.inblob_len:
            raise kernel_error(errno.EINVAL, path)
        try:
            item.outblob, item.auxblob = driver.report(item.inblob, item.privlevel)
        except OSError as error:
            raise kernel_error(error.errno or errno.EIO, path) from None
        item.read_generation = item.write_generation


@dataclass
class Registers:
    """`tdx_guest/measurements` as drivers/virt/coco/guest/tsm-mr.c shows it: read, or extend by 48.

    Attributes:
        base: the folder.
        values: register file name to value.
        after_write: runs after each extension: another process, in that moment.
    """

    base: Path
    values: dict[str, bytes] = field(
        default_factory=lambda: {f"rtmr{n}:sha384": bytes(48) for n in range(4)}
    )
    after_write: Callable[[], None] | None = None
    fails: deque[int] = field(default_factory=deque)
    short: deque[int] = field(default_factory=deque)
    writes: int = 0

    def extend(self, name: str, data: bytes) -> None:
        self.values[name] = hashlib.sha384(self.values[name] + data).digest()

    def mkdir(self, path: Path) -> None:
        raise kernel_error(errno.EPERM, path)

    def rmdir(self, path: Path) -> None:
        raise kernel_error(errno.EPERM, path)

    def exists(self, path: Path) -> bool:
        return path == self.base or path.name in self.values

    def read(self, path: Path, limit: int) -> bytes:
        value = self._value(path)
        if len(value) > limit:
            raise kernel_error(errno.EFBIG, path)
        return value

    def write(self, path: Path, data: bytes) -> int:
        self._value(path)
        if self.short:
            return self.short.popleft()
        if len(data) != 48:
            raise kernel_error(errno.EINVAL, path)
        self.extend(path.name, data)
        self.writes += 1
        if self.after_write is not None:
            self.after_write()
        return len(data)

    def _value(self, path: Path) -> bytes:
        if self.fails:
            raise kernel_error(self.fails.popleft(), path)
        if path.parent != self.base or path.name not in self.values:
            raise kernel_error(errno.ENOENT, path)
        return self.values[path.name]


@dataclass
class Clock:
    """Time that passes only by sleeping, or by what a driver says it took."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
