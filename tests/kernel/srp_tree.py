"""A file tree standing in for the sysfs of a host with ib_srp, and a scripted kernel behind its attributes."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from srpha.kernel.kernel_log import LogReader
from srpha.kernel.sysfs import AttributeGoneError, Sysfs

GID_A = "fe80:0000:0000:0000:0002:c903:00a1:0001"
DGID_1 = "fe80:0000:0000:0000:0002:c903:00ff:0011"
DGID_2 = "fe80:0000:0000:0000:0002:c903:00ff:0012"
ID_EXT = "0002c90300ff0010"


def login_line(dgid: str = DGID_1, **options: str) -> str:
    items = {
        "id_ext": ID_EXT,
        "ioc_guid": ID_EXT,
        "dgid": dgid.replace(":", ""),
        "pkey": "ffff",
        "service_id": ID_EXT,
        "initiator_ext": dgid.replace(":", "")[16:],
        **options,
    }
    return ",".join(f"{key}={value}" for key, value in items.items())


RDMA_LINE = f"id_ext={ID_EXT},ioc_guid={ID_EXT},dest=192.0.2.1:5555"


class SrpTree:
    """Makes and changes the files. Paths are relative to ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "class/scsi_host").mkdir(parents=True)

    def put(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n", encoding="ascii")

    def drop(self, path: str) -> None:
        place = self.root / path
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()

    def local_port(self, device: str, port: int, gid: str = GID_A) -> None:
        self.put(f"class/infiniband_srp/srp-{device}-{port}/ibdev", device)
        self.put(f"class/infiniband_srp/srp-{device}-{port}/port", str(port))
        self.put(f"class/infiniband_srp/srp-{device}-{port}/add_target", "")
        self.put(f"class/infiniband/{device}/ports/{port}/gids/0", gid)

    def host(self, number: int, device: str = "mlx5_0", port: int = 1, dgid: str | None = DGID_1, **more: str) -> None:
        """An SRP host with its remote port; ``dgid`` None: over RDMA/CM."""
        attributes = {
            "proc_name": "ib_srp",
            "id_ext": f"0x{ID_EXT}",
            "ioc_guid": f"0x{ID_EXT}",
            "sgid": GID_A,
            "req_lim": "61",
            "zero_req_lim": "0",
            "local_ib_port": str(port),
            "local_ib_device": device,
            "ch_count": "4",
        }
        if dgid is not None:
            attributes |= {"service_id": f"0x{ID_EXT}", "pkey": "0xffff", "dgid": dgid, "orig_dgid": dgid}
        for name, text in {**attributes, **more}.items():
            self.put(f"class/scsi_host/host{number}/{name}", text)
        self.remote_port(number)

    def remote_port(self, number: int, **more: str) -> None:
        attributes = {
            "state": "running",
            "fast_io_fail_tmo": "15",
            "dev_loss_tmo": "600",
            "reconnect_delay": "10",
            "failed_reconnects": "0",
            "delete": "",
            "port_id": ":".join(ID_EXT[i : i + 2] for i in range(0, 16, 2)) + ":" + "00:02:c9:03:00:ff:00:10",
            "roles": "SRP Target",
        }
        for name, text in {**attributes, **more}.items():
            self.put(f"class/srp_remote_ports/port-{number}:1/{name}", text)

    def disk(self, host: int, lun: int, name: str, dev: str, state: str = "running") -> None:
        base = f"bus/scsi/devices/{host}:0:0:{lun}"
        self.put(f"{base}/state", state)
        self.put(f"{base}/block/{name}/dev", dev)

    def tear_down(self, number: int, *, attributes_only: bool = False) -> None:
        """What srp_remove_target does first, and the rest of it."""
        place = self.root / f"class/scsi_host/host{number}"
        for attribute in place.iterdir():
            if attribute.name != "proc_name":
                attribute.unlink()
        if not attributes_only:
            self.drop(f"class/srp_remote_ports/port-{number}:1")
            self.drop(f"class/scsi_host/host{number}")


Script = Callable[[str], None]
"""What the kernel does with a line: makes a host, or raises OSError."""


class ScriptedSysfs(Sysfs):
    """Reads the tree; what is written goes to a script, by the end of the path, and is noted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.scripts: dict[str, Script] = {}
        self.written: list[tuple[str, str]] = []

    def write(self, path: str, text: str) -> None:
        if not (self.root / path).exists():
            raise AttributeGoneError(path)
        self.written.append((path, text))
        for end, script in self.scripts.items():
            if path.endswith(end):
                return script(text)
        return super().write(path, text)


def refusal(code: int) -> Script:
    """A kernel that says no."""

    def script(text: str) -> None:
        raise OSError(code, os.strerror(code))

    return script


class FakeLog:
    """A kernel log in memory; readers see what is written after they were opened."""

    def __init__(self) -> None:
        self.records: list[str] = []
        self.refuse = 0
        self.open_readers = 0
        self._lock = threading.Lock()

    def say(self, *records: str) -> None:
        with self._lock:
            self.records += records

    def open(self, *, from_start: bool = False) -> LogReader:
        if self.refuse:
            raise OSError(self.refuse, os.strerror(self.refuse))
        self.open_readers += 1
        return _FakeReader(self, 0 if from_start else len(self.records))


class _FakeReader:
    def __init__(self, log: FakeLog, position: int) -> None:
        self._log = log
        self._position = position
        self._closed = False

    def lines(self) -> tuple[str, ...]:
        found = self._log.records[self._position :]
        self._position += len(found)
        return tuple(found)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._log.open_readers -= 1


class KernelTimers:
    """The timer attributes of one remote port with the kernel's check behind them (scsi_transport_srp)."""

    def __init__(self, tree: SrpTree, sysfs: ScriptedSysfs, host: int) -> None:
        self._tree = tree
        self._base = f"class/srp_remote_ports/port-{host}:1"
        for name in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo"):
            sysfs.scripts[f"port-{host}:1/{name}"] = self._script(name)

    def _script(self, name: str) -> Script:
        def script(text: str) -> None:
            values = {n: self._number(n) for n in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo")}
            values[name] = -1 if text.startswith("off") else int(text)
            reconnect, fast, loss = values.values()
            wrong = (
                (reconnect < 0 and fast < 0 and loss < 0)
                or reconnect == 0
                or fast > 600
                or (fast < 0 and loss > 600)
                or (fast >= 0 and loss >= 0 and fast >= loss)
            )
            if wrong:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._tree.put(f"{self._base}/{name}", text)

        return script

    def _number(self, name: str) -> int:
        text = (self._tree.root / self._base / name).read_text().strip()
        return -1 if text == "off" else int(text)
