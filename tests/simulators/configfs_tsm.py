"""A model of the kernel's report and measurement files, for collectors that take `Files`.

Usable by third parties: give `ConfigfsTsm` a `Provider` and hand it to whatever talks to
/sys/kernel/config/tsm/report. It keeps the rules of the real thing, in particular the awkward ones
(Linux: drivers/virt/coco/guest/report.c, its users tdx-guest.c and sev-guest.c, and
fs/configfs/file.c):

- `inblob` is stored when its file is closed (`configfs_release_bin_file`); a refusal there is
  silent, only `generation` tells;
- reading `outblob` makes the report, once for every generation, and keeps it (`tsm_report_read`);
  a failed one is kept as none;
- a blob is read in two steps, its size and its content (`configfs_bin_read_iter`): what changes in
  between gives the new content at the old size, with rubbish behind a shorter one;
- `generation` counts the writes of every attribute, and stops one before it would wrap around to
  the generation last read (EBUSY, `try_advance_write_generation`);
- which attributes a folder has is decided when it is made (`tsm_report_is_visible`): SVSM's only
  below level 0, levels on SNP only; others are not there (ENOENT); reading one that is only
  written, or the other way round, is EACCES even for root (`__configfs_open_file`);
- `privlevel` starts at 0 whatever the floor; a report below the floor is refused by the firmware
  (EINVAL, `sev_report_new`), a write below it by the kernel (EINVAL);
- without a provider, mkdir is ENXIO; without the one there was, so are `provider` and reports;
- a folder belongs to nobody: what a killed process leaves stays, and anyone may remove it, upon
  which its open files say ENOENT.

Faults are queued (`fail`) or run at a moment (`when`): another process' write between two of ours.
Short writes (`take_only`) are no habit of configfs; a signal may still cut one.
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
OUTBLOB_MAX = 16 * 1024 * 1024  # 32 KiB in older kernels
PRIVLEVEL_MAX = 3
RUBBISH = 0xEE

LEVELS = frozenset({"privlevel", "privlevel_floor"})
SVSM = frozenset({"service_provider", "service_guid", "service_manifest_version", "manifestblob"})
_ALWAYS = frozenset({"generation", "provider", "inblob", "outblob"})
_WRITTEN = frozenset({"inblob", "privlevel"}) | SVSM - {"manifestblob"}


def kernel_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


@dataclass
class Provider:
    """A driver.

    Attributes:
        name: as the `provider` attribute shows it.
        report: (inblob, privlevel) to (outblob, auxblob); raises OSError as a driver would.
        attributes: optional attributes it shows: auxblob, LEVELS, SVSM.
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

    shown: frozenset[str] = _ALWAYS
    write_generation: int = 0
    read_generation: int = 0
    inblob: bytes = b""
    privlevel: int = 0
    options: dict[str, bytes] = field(default_factory=dict)
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
        """After the next such call, `act` runs with the folder: another process, in that moment.

        Besides "read" and "write", the call may be "size": between a blob's size and its content.
        """
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
        self.items[path.name] = Item(_ALWAYS | self.provider.attributes)

    def rmdir(self, path: Path) -> None:
        self._call("rmdir", "", path)
        if path.parent != self.base or path.name not in self.items:
            raise kernel_error(errno.ENOENT, path)
        del self.items[path.name]

    def exists(self, path: Path) -> bool:
        return path == self.base or path.name in self.items

    def read(self, path: Path, limit: int) -> bytes:
        self._call("read", path.name, path)
        item = self._open(path, written=False)
        if path.name == "generation":
            found = b"%d\n" % item.write_generation
        elif path.name == "provider":
            found = b"%s\n" % self._driver(path).name.encode()
        elif path.name == "privlevel_floor":
            found = b"%d\n" % self._driver(path).floor
        else:
            size = len(self._blob(item, path))
            if size > OUTBLOB_MAX:
                raise kernel_error(errno.EFBIG, path)
            self._now("size", path)
            found = self._blob(self._open(path, written=False), path)[:size]
            found = found.ljust(size, bytes([RUBBISH]))
        self._now("read", path)
        if len(found) > limit:
            raise kernel_error(errno.EFBIG, path)
        return found

    def write(self, path: Path, data: bytes) -> int:
        self._call("write", path.name, path)
        item = self._open(path, written=True)
        if path.name == "privlevel":
            self._store_privlevel(item, data, path)
            taken = len(data)
        elif path.name != "inblob":
            self._advance(item, path)
            item.options[path.name] = data
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

    def _open(self, path: Path, *, written: bool) -> Item:
        item = self.items.get(path.parent.name)
        if item is None or path.parent.parent != self.base or path.name not in item.shown:
            raise kernel_error(errno.ENOENT, path)
        if (path.name in _WRITTEN) != written:
            raise kernel_error(errno.EACCES, path)
        return item

    def _advance(self, item: Item, path: Path) -> None:
        failed = item.advance()
        if failed:
            raise kernel_error(failed, path)

    def _store_privlevel(self, item: Item, data: bytes, path: Path) -> None:
        try:
            level = int(data.decode("ascii").removesuffix("\n"), 0)
        except ValueError:
            raise kernel_error(errno.EINVAL, path) from None
        if not self._driver(path).floor <= level <= PRIVLEVEL_MAX:
            raise kernel_error(errno.EINVAL, path)
        self._advance(item, path)
        item.privlevel = level

    def _blob(self, item: Item, path: Path) -> bytes:
        self._generate(item, path)
        if path.name == "manifestblob":
            return b""
        return (item.outblob or b"") if path.name == "outblob" else item.auxblob

    def _generate(self, item: Item, path: Path) -> None:
        if not item.inblob:
            raise kernel_error(errno.EINVAL, path)
        if item.outblob is not None and item.read_generation == item.write_generation:
            return
        driver = self._driver(path)
        item.outblob, item.auxblob = None, b""
        if len(item.inblob) != driver.inblob_len or item.privlevel < driver.floor:
            raise kernel_error(errno.EINVAL, path)
        try:
            item.outblob, item.auxblob = driver.report(item.inblob, item.privlevel)
        except OSError as error:
            raise kernel_error(error.errno or errno.EIO, path) from None
        item.read_generation = item.write_generation


@dataclass
class Registers:
    """`tdx_guest/measurements` as drivers/virt/coco/guest/tsm-mr.c shows it: read, or extend by 48.

    A write takes exactly 48 bytes from offset 0, anything else is EINVAL and extends nothing. What
    the module answers comes back (`tdx_mcall_extend_rtmr`): EBUSY while another processor extends,
    ENXIO for an operand, EIO for the rest; none of them extended. A read is answered from a copy
    that is renewed only after a write through these files: what the kernel itself extends does not
    show.

    Attributes:
        base: the folder.
        values: register file name to the value in the processor.
        after_write: runs after each extension: another process, in that moment.
        fails, write_fails: errnos for the next calls, or the next writes alone.
        short: counts that the next writes take, extending nothing.
        writes: extensions through this object.
    """

    base: Path
    values: dict[str, bytes] = field(
        default_factory=lambda: {f"rtmr{n}:sha384": bytes(48) for n in range(4)}
    )
    after_write: Callable[[], None] | None = None
    fails: deque[int] = field(default_factory=deque)
    write_fails: deque[int] = field(default_factory=deque)
    short: deque[int] = field(default_factory=deque)
    writes: int = 0
    _copy: dict[str, bytes] | None = None

    def extend(self, name: str, data: bytes) -> None:
        """As another process does it, through these files."""
        self.extend_inside(name, data)
        self._copy = None

    def extend_inside(self, name: str, data: bytes) -> None:
        """As the kernel does it for itself."""
        self.values[name] = hashlib.sha384(self.values[name] + data).digest()

    def mkdir(self, path: Path) -> None:
        raise kernel_error(errno.EPERM, path)

    def rmdir(self, path: Path) -> None:
        raise kernel_error(errno.EPERM, path)

    def exists(self, path: Path) -> bool:
        return path == self.base or path.name in self.values

    def read(self, path: Path, limit: int) -> bytes:
        self._find(path)
        if self._copy is None:
            self._copy = dict(self.values)
        value = self._copy[path.name]
        if len(value) > limit:
            raise kernel_error(errno.EFBIG, path)
        return value

    def write(self, path: Path, data: bytes) -> int:
        self._find(path)
        if self.write_fails:
            raise kernel_error(self.write_fails.popleft(), path)
        if self.short:
            return self.short.popleft()
        if len(data) != 48:
            raise kernel_error(errno.EINVAL, path)
        self.extend(path.name, data)
        self.writes += 1
        if self.after_write is not None:
            self.after_write()
        return len(data)

    def _find(self, path: Path) -> None:
        if self.fails:
            raise kernel_error(self.fails.popleft(), path)
        if path.parent != self.base or path.name not in self.values:
            raise kernel_error(errno.ENOENT, path)


@dataclass
class Clock:
    """Time that passes only by sleeping, or by what a driver says it took."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
