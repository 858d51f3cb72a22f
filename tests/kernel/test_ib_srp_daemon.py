"""The daemon over the kernel's initiator: a file tree, a scripted ib_srp, real threads and the real clock."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from pathlib import Path

import pytest
from fake_seams import FakeMadPort, Log

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.connections.attempts import BackOff
from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.targets.static_targets import parse_static_target
from srpha.daemon.settings import Settings
from srpha.daemon.supervisor import Supervisor
from srpha.kernel.ib_srp import IbSrpInitiator
from tests.kernel.srp_tree import FakeLog, KernelTimers, ScriptedSysfs, SrpTree

pytestmark = pytest.mark.realtime

TIMERS = RemotePortTimers(6, 5, 900)
STATIC = parse_static_target("id_ext=00000000000000aa,ioc_guid=00000000000000bb,dest=192.0.2.1:5555")


class FakeIbSrp:
    """ib_srp as far as the daemon can tell: makes hosts, knows duplicates by initiator_ext, tells its log."""

    def __init__(self, root: Path) -> None:
        self.tree = SrpTree(root)
        self.sysfs = ScriptedSysfs(root)
        self.log = FakeLog()
        self.known: dict[tuple[str, str, str, str], int] = {}
        self.refuse_once: list[str] = []
        self.next_host = 0

    def local_port(self, device: str, port: int) -> None:
        self.tree.local_port(device, port)

        def add(line: str) -> None:
            self._add(device, port, dict(item.split("=", 1) for item in line.split(",")))

        self.sysfs.scripts[f"srp-{device}-{port}/add_target"] = add

    def _add(self, device: str, port: int, items: dict[str, str]) -> None:
        host = self.next_host
        self.next_host += 1
        if self.refuse_once:
            self.log.say(f"scsi host{host}:   REJ reason {self.refuse_once.pop()}")
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        key = f"{device}/{port}", items["id_ext"], items["ioc_guid"], items.get("initiator_ext", "0")
        if key in self.known:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.known[key] = host
        ids = {"id_ext": f"0x{items['id_ext']}", "ioc_guid": f"0x{items['ioc_guid']}"}
        if "dest" in items:
            self.tree.host(host, device, port, None, **ids)
            self.log.say(
                f"scsi host{host}: ib_srp: new target: id_ext {items['id_ext']} ioc_guid {items['ioc_guid']} "
                f"sgid {'0000:' * 7}0001 dest {items['dest'].rpartition(':')[0]}"
            )
        else:
            dgid = ":".join(re.findall("....", items["dgid"]))
            ids |= {"service_id": f"0x{items['service_id']}", "pkey": f"0x{items['pkey']}"}
            self.tree.host(host, device, port, dgid, **ids)
        KernelTimers(self.tree, self.sysfs, host)

    def remove(self, host: int) -> None:
        self.tree.tear_down(host)
        self.known = {key: number for key, number in self.known.items() if number != host}


async def until_connected(supervisor: Supervisor, count: int) -> None:
    async with asyncio.timeout(30):
        while True:
            seen = supervisor.snapshot()
            timers = [item.timers for item in seen.connections or ()]
            if [pair.status for pair in seen.pairs].count(PairStatus.CONNECTED) == count and {*timers} == {TIMERS}:
                return
            await asyncio.sleep(0.01)


async def test_connects_sets_timers_mends_and_adopts(tmp_path: Path) -> None:
    kernel = FakeIbSrp(tmp_path)
    identities = [local_port(1), local_port(2)]
    for item in identities:
        kernel.local_port(item.device, item.port)
    subnet = ScriptedSubnet(ports=identities, units=[srp_unit(1), srp_unit(2)])
    ports = [FakeMadPort(item, subnet) for item in identities]
    settings = Settings(static_targets=(STATIC,), timers=TIMERS, poll_interval=0.2)
    log = Log()
    for life in (1, 2):
        srp = IbSrpInitiator(kernel.sysfs, kernel.log)
        supervisor = Supervisor(ports, srp, None, settings, log)
        task = asyncio.create_task(supervisor.run())
        await until_connected(supervisor, 6)
        if life == 1:
            assert len(log.of(EventKind.CONNECTED)) == 6
            victim = (await srp.connections())[0].host
            kernel.remove(victim)
            srp.changed()
            await asyncio.sleep(0.05)
            await until_connected(supervisor, 6)
            assert victim not in {item.host for item in await srp.connections()}
        task.cancel()
        await asyncio.wait([task])
        srp.close()
        assert kernel.next_host == 7, "six logins and one again; none by the second daemon"
    assert len(log.of(EventKind.CONNECTION_ADOPTED)) == 6


async def test_a_refusal_is_told_with_its_reason(tmp_path: Path) -> None:
    kernel = FakeIbSrp(tmp_path)
    identity = local_port(1)
    kernel.local_port(identity.device, identity.port)
    kernel.refuse_once = ["0x3"]
    subnet = ScriptedSubnet(ports=[identity], units=[])
    log = Log()
    srp = IbSrpInitiator(kernel.sysfs, kernel.log)
    settings = Settings(static_targets=(STATIC,), timers=TIMERS, back_off=BackOff(first=0.05))
    supervisor = Supervisor([FakeMadPort(identity, subnet)], srp, None, settings, log)
    task = asyncio.create_task(supervisor.run())
    await until_connected(supervisor, 1)
    (event,) = log.of(EventKind.CONNECT_FAILED)
    assert "192.0.2.1:5555: CM REJ reason 3: no resources available" in event.text
    assert "ch_count" in event.text
    task.cancel()
    await asyncio.wait([task])
    srp.close()
