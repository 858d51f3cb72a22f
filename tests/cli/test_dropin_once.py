from __future__ import annotations

import asyncio
import errno
import random
from dataclasses import replace
from pathlib import Path

import pytest
from dropin_host import EmbeddedDropinHost, FakeHost, run

from srpha.core.seams import AddTargetError, InitiatorError, LinkLayer, LinkState
from srpha.embedded.world import World
from srpha.embedded.worldspec import WorldSpec
from srpha.wire.sa import SaAttribute

HEAD = "id_ext=2005000000000100,ioc_guid=0002c90301000001,dgid=fe800000000000000002c90300000001"
LINE1 = f"{HEAD},pkey=ffff,service_id=0002c90300000001"
LINE2 = LINE1.replace("00000001", "00000002").replace("01000001", "01000002").replace("000100,", "000200,")
EXT1 = ",initiator_ext=0002c90300000001"
EXT2 = ",initiator_ext=0002c90300000002"


class TestPrinting:
    async def test_lines(self) -> None:
        code, said = await run(FakeHost(), "srp_daemon -o -c")
        assert (code, said.lines, said.errors) == (0, [LINE1, LINE2], [])

    async def test_lines_with_initiator_ext(self) -> None:
        _, said = await run(FakeHost(), "srp_daemon -ocan")
        assert said.lines == [LINE1 + EXT1, LINE2 + EXT2]

    async def test_ibsrpdm(self) -> None:
        host = FakeHost()
        code, said = await run(host, "ibsrpdm -c")
        assert (code, said.lines) == (0, [LINE1, LINE2])
        assert host.initiators == 0

    @pytest.mark.parametrize("words", ["ibsrpdm", "srp_daemon -o"])
    async def test_listing(self, words: str) -> None:
        code, said = await run(FakeHost(), words)
        text = "".join(said.results)
        assert code == 0
        assert text.count("IO Unit Info:\n") == 2
        assert text.startswith("IO Unit Info:\n    port LID:        0065\n")
        assert "controller[  1]: present" not in text
        assert "            service[  0]: 0002c90300000001 / SRP.T10:2005000000000100\n" in text

    async def test_listing_with_slots(self) -> None:
        _, said = await run(FakeHost(), "srp_daemon -ov")
        text = "".join(said.results)
        assert text.startswith(" configuration report\n")
        assert text.count("    controller[  1]: present\n") == 2

    async def test_once_per_shared_partition(self) -> None:
        host = FakeHost()
        host.mad_ports["mlx5_0/1"].change(pkeys=(0xFFFF, 0x8001, 0x8002))
        host.subnet.units[0].pkeys = (0xFFFF, 0x8002)
        _, said = await run(host, "srp_daemon -oc")
        assert said.lines == [LINE1, LINE1.replace("pkey=ffff", "pkey=8002"), LINE2]
        _, said = await run(host, "ibsrpdm")
        assert "".join(said.results).count("IO Unit Info:\n") == 3

    async def test_no_targets(self) -> None:
        host = FakeHost(targets=0)
        code, said = await run(host, "srp_daemon -o -c -v")
        assert (code, said.lines[-1]) == (0, "Query did not find any targets")
        _, said = await run(host, "srp_daemon -oc")
        assert said.lines == []

    async def test_immediate_data(self) -> None:
        host = FakeHost(targets=1)
        host.imm_data = 8192
        _, said = await run(host, "srp_daemon -oc")
        assert said.lines == [f"{LINE1},max_it_iu_size=2116"]

    async def test_tl_retry_count_only_with_execute(self) -> None:
        host = FakeHost(targets=1)
        assert (await run(host, "srp_daemon -oc -l 3"))[1].lines == [LINE1]
        assert (await run(host, "srp_daemon -oec -l 3"))[1].lines == [f"{LINE1},tl_retry_count=3"]

    async def test_silent_target_hides_no_other_and_is_told(self) -> None:
        host = FakeHost(targets=3)
        host.subnet.units[0].silent = True
        code, said = await run(host, "srp_daemon -oc")
        assert (code, said.lines[0]) == (0, LINE2)
        assert len(said.lines) == 2
        assert said.errors == [
            "I/O unit 0002c90300000001 with LID 101: no answer from its Device Management agent, asked from mlx5_0/1"
        ]


class TestRules:
    async def test_first_that_matches_decides(self, tmp_path: Path) -> None:
        rules = tmp_path / "conf"
        rules.write_text("a ioc_guid=0002c90301000002 max_sect=128,queue_size=9\nd\n", encoding="ascii")
        host = FakeHost()
        _, said = await run(host, "srp_daemon -oc", rules)
        assert said.lines == [f"{LINE2},max_sect=128,queue_size=9"]
        _, said = await run(host, "srp_daemon -o", rules)
        assert "".join(said.results).count("IO Unit Info:\n") == 2, "rules do not hide units from the listing"

    async def test_wrong_rules_stop_everything(self, tmp_path: Path) -> None:
        rules = tmp_path / "conf"
        rules.write_text("# fine\nx id_ext=1\n", encoding="ascii")
        host = FakeHost()
        code, said = await run(host, "srp_daemon -oe", rules)
        assert (code, said.results, host.fake_initiator.lines) == (1, [], [])
        assert said.errors[0].startswith(f"{rules}:2:1: ")

    async def test_missing_rules_allow_everything(self) -> None:
        code, said = await run(FakeHost(), "srp_daemon -oc")
        assert code == 0
        assert said.debug[0] == "there is no rules file /nonexistent/srp_daemon.conf: every target is allowed"

    async def test_unreadable_rules_stop_everything(self, tmp_path: Path) -> None:
        code, said = await run(FakeHost(), "srp_daemon -oc", tmp_path)
        assert (code, said.results) == (1, [])
        assert said.errors == [f"rules file {tmp_path} cannot be read: Is a directory"]


class TestConnecting:
    async def test_hands_every_line_to_the_driver(self) -> None:
        host = FakeHost()
        code, said = await run(host, "srp_daemon -o -e -n")
        assert (code, said.results) == (0, [])
        assert [line for _, _, line in host.fake_initiator.lines] == [LINE1 + EXT1, LINE2 + EXT2]
        code, said = await run(host, "srp_daemon -oecn")
        assert (code, said.lines, len(host.fake_initiator.made)) == (0, [], 2)

    async def test_without_execute_nothing_is_changed(self) -> None:
        host = FakeHost()
        for words in ("srp_daemon -o", "srp_daemon -oca", "srp_daemon -oc", "ibsrpdm -c"):
            await run(host, words)
        assert host.fake_initiator.lines == []
        assert host.fake_initiator.timer_sets == []

    async def test_connected_targets_are_shown_only_with_all(self) -> None:
        host = FakeHost()
        await run(host, "srp_daemon -oe")
        assert (await run(host, "srp_daemon -oc"))[1].lines == []
        assert (await run(host, "srp_daemon -oca"))[1].lines == [LINE1, LINE2]
        assert (await run(host, "srp_daemon -oeca"))[1].lines == [LINE1, LINE2]
        assert len(host.fake_initiator.lines) == 2

    async def test_one_connection_serves_all_partitions(self) -> None:
        host = FakeHost(targets=1)
        host.mad_ports["mlx5_0/1"].change(pkeys=(0xFFFF, 0x8001))
        host.subnet.units[0].pkeys = (0xFFFF, 0x8001)
        code, said = await run(host, "srp_daemon -oec")
        assert (code, said.lines) == (0, [LINE1])
        assert (await run(host, "srp_daemon -oec"))[1].lines == []
        other = LINE1.replace("pkey=ffff", "pkey=8001")
        assert (await run(host, "srp_daemon -oc"))[1].lines == [other], "as srp_daemon: without -e the P_Key counts"

    async def test_second_partition_is_tried_when_the_first_fails(self) -> None:
        host = FakeHost(targets=1)
        host.mad_ports["mlx5_0/1"].change(pkeys=(0xFFFF, 0x8001))
        host.subnet.units[0].pkeys = (0xFFFF, 0x8001)
        host.fake_initiator.errors = [AddTargetError(errno.ECONNRESET, "rejected")]
        code, _ = await run(host, "srp_daemon -oe")
        assert code == 1
        assert [item.pkey for item in host.fake_initiator.made] == [0x8001]

    async def test_failed_login_is_told_and_counts(self) -> None:
        host = FakeHost()
        host.fake_initiator.errors = [AddTargetError(errno.ECONNRESET, "rejected: too many channels")]
        code, said = await run(host, "srp_daemon -oe")
        assert (code, len(host.fake_initiator.made)) == (1, 1)
        (sentence,) = said.errors
        assert sentence.endswith("@0002c90300000001: rejected: too many channels")

    async def test_what_is_connected_already_is_no_failure(self) -> None:
        host = FakeHost(targets=1)
        host.fake_initiator.errors = [AddTargetError(errno.EEXIST, "already connected")]
        assert (await run(host, "srp_daemon -oe"))[0] == 0

    async def test_unknown_connections_are_not_taken_for_none(self) -> None:
        host = FakeHost()
        host.fake_initiator.unreadable = True
        code, said = await run(host, "srp_daemon -oe")
        assert (code, host.fake_initiator.lines) == (1, [])
        assert said.errors[0].startswith("existing connections could not be read: ")

    async def test_initiator_that_breaks_ends_in_an_error(self) -> None:
        host = FakeHost(targets=1)
        host.fake_initiator.errors = [InitiatorError("the port is gone")]
        code, said = await run(host, "srp_daemon -oe")
        assert code == 1
        assert said.errors[0].endswith("the port is gone")


class TestFailures:
    """Where srp_daemon ends with 0 though it did nothing."""

    async def test_no_such_device(self) -> None:
        code, said = await run(FakeHost(), "srp_daemon -o -i xx")
        assert (code, said.errors) == (1, ["port 1 of xx cannot be used: mlx5_98/1: no such device"])

    async def test_wrong_link_layer(self) -> None:
        host = FakeHost()
        host.mad_ports["mlx5_0/1"].change(link_layer=LinkLayer.ETHERNET)
        code, said = await run(host, "srp_daemon -o -i mlx5_0")
        assert code == 1
        assert said.errors == ["port 1 of mlx5_0 cannot be used: its link layer is Ethernet, not InfiniBand"]

    async def test_no_subnet_manager(self) -> None:
        host = FakeHost()
        host.mad_ports["mlx5_0/1"].change(sm_lid=0)
        assert (await run(host, "srp_daemon -oc"))[0] == 1

    async def test_silent_subnet_administrator(self) -> None:
        host = FakeHost()
        host.subnet.sa_silent = True
        code, said = await run(host, "srp_daemon -oc -t 100")
        assert (code, said.lines) == (1, [])
        assert said.errors[0] == "the list of targets is not complete: no answer from the subnet administrator"

    async def test_part_of_an_answer_is_printed_and_counts_as_failure(self) -> None:
        host = FakeHost()
        host.subnet.failing = {SaAttribute.NODE_RECORD}
        code, said = await run(host, "srp_daemon -oc")
        assert (code, said.lines) == (1, [LINE1, LINE2])


class TestChoiceOfPorts:
    async def test_first_active_one_by_default(self) -> None:
        host = FakeHost(ports=3)
        host.mad_ports["mlx5_0/1"].change(state=LinkState.DOWN)
        host.mad_ports["mlx5_1/1"].change(link_layer=LinkLayer.ETHERNET)
        await run(host, "srp_daemon -oe")
        assert {port for _, port, _ in host.fake_initiator.lines} == {"mlx5_2/1"}

    @pytest.mark.parametrize("flag", ["-d /dev/infiniband/umad1", "-i mlx5_1", "-i mlx5_1 -p 1", "-j mlx5_1:1"])
    async def test_the_one_that_is_named(self, flag: str) -> None:
        host = FakeHost(ports=2)
        await run(host, f"srp_daemon -oe {flag}")
        assert {port for _, port, _ in host.fake_initiator.lines} == {"mlx5_1/1"}

    async def test_the_device_comes_before_the_umad_device(self) -> None:
        host = FakeHost(ports=2)
        await run(host, "srp_daemon -oe -d /dev/infiniband/umad0 -i mlx5_1")
        assert {port for _, port, _ in host.fake_initiator.lines} == {"mlx5_1/1"}

    async def test_all_of_them_with_one_scan(self) -> None:
        host = FakeHost(ports=2)
        code, said = await run(host, "srp_daemon -oen --all-ports")
        assert (code, said.errors) == (0, [])
        assert {port for _, port, _ in host.fake_initiator.lines} == {"mlx5_0/1", "mlx5_1/1"}
        assert len(host.fake_initiator.made) == 4
        assert host.subnet.asked(3, SaAttribute.NODE_RECORD) == 1

    @pytest.mark.parametrize(
        ("flag", "complaint"),
        [
            ("-d umad0", "-d 'umad0': a user MAD device with its folder is needed, as in /dev/infiniband/umad0"),
            (
                "-d /dev/infiniband/umad7",
                "-d '/dev/infiniband/umad7': there is no such user MAD device; there are umad0",
            ),
        ],
    )
    async def test_umad_device_that_is_none(self, flag: str, complaint: str) -> None:
        code, said = await run(FakeHost(), f"srp_daemon -o {flag}")
        assert (code, said.errors) == (1, [complaint])

    async def test_none_at_all(self) -> None:
        host = FakeHost()
        host.hidden = True
        code, said = await run(host, "ibsrpdm")
        assert code == 1
        assert said.errors[0].startswith("this host has no active InfiniBand port")

    async def test_kernel_interface_that_is_not_understood(self) -> None:
        host = FakeHost()
        host.trouble = "abi_version says '6'"
        code, said = await run(host, "ibsrpdm")
        assert (code, said.errors) == (1, ["abi_version says '6'"])


async def test_on_the_embedded_subnet() -> None:
    """Real bytes end to end: what is printed is what connects."""
    world = World(WorldSpec.demo(), random.Random(1))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.run())
        await world.ready()
        host = EmbeddedDropinHost(world.hosts["host1"])
        code, shown = await run(host, "srp_daemon -ocn -i mlx5_0")
        assert (code, shown.errors) == (0, [])
        assert len(shown.lines) == 4
        code, made = await run(host, "srp_daemon -oecn -i mlx5_0")
        assert (code, made.lines) == (0, shown.lines)
        connections = await world.hosts["host1"].initiator.connections()
        assert len(connections) == 4
        assert {item.local_port for item in connections} == {"mlx5_0/1"}
        assert (await run(host, "srp_daemon -ocn -i mlx5_0"))[1].lines == []
        assert len((await run(host, "srp_daemon -ocn -i mlx5_1"))[1].lines) == 4
        task.cancel()


async def test_planted_fault_is_noticed() -> None:
    """The golden line above would not let a wrong identifier pass."""
    host = FakeHost(targets=1)
    host.subnet.units[0].iocs[0].services = [replace(host.subnet.units[0].iocs[0].services[0], service_id=1)]
    assert (await run(host, "srp_daemon -oc"))[1].lines != [LINE1]
