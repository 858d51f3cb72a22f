from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from umad_fakes import add_node, make_port, write_file

from srpha.core.seams import LinkLayer, LinkState, MadPortGoneError, PortIdentity
from srpha.kernel.ports import PortDescription, PortFiles, UmadAbiError, find_ports
from srpha.wire.identifiers import Gid

DEV = Path("/dev")


def found(root: Path) -> list[str]:
    return [port.name for port in find_ports(root, DEV)]


class TestFindPorts:
    def test_nothing_where_the_module_is_not_loaded(self, tmp_path: Path) -> None:
        assert find_ports(tmp_path, DEV) == ()

    def test_nothing_where_no_device_is(self, tmp_path: Path) -> None:
        write_file(tmp_path / "class/infiniband_mad/abi_version", "5\n")
        assert find_ports(tmp_path, DEV) == ()

    def test_several_devices_and_ports_in_natural_order(self, tmp_path: Path) -> None:
        for umad, (device, port) in enumerate(
            [("mlx4_10", 1), ("mlx4_1", 2), ("ibp0s12f4", 1), ("mlx4_1", 1), ("mlx4_2", 1)]
        ):
            make_port(tmp_path, device, port, umad)
        add_node(tmp_path, 11, "mlx4_1", 10)
        assert found(tmp_path) == ["ibp0s12f4/1", "mlx4_1/1", "mlx4_1/2", "mlx4_1/10", "mlx4_2/1", "mlx4_10/1"]

    def test_names_the_character_device(self, tmp_path: Path) -> None:
        make_port(tmp_path, "mlx4_10", 1, 0)
        make_port(tmp_path, "mlx4_1", 1, 12)
        assert find_ports(tmp_path, DEV) == (
            PortDescription("mlx4_1", 1, Path("/dev/infiniband/umad12")),
            PortDescription("mlx4_10", 1, Path("/dev/infiniband/umad0")),
        )

    def test_names_of_63_characters(self, tmp_path: Path) -> None:
        long = "ibx" + "0123456789abcdef" * 3 + "012345678901"
        make_port(tmp_path, long, 1, 0)
        make_port(tmp_path, "ibx506b4b0300c8c0fa", 1, 1)
        assert set(found(tmp_path)) == {f"{long}/1", "ibx506b4b0300c8c0fa/1"}

    def test_other_entries_are_none_of_ours(self, tmp_path: Path) -> None:
        make_port(tmp_path)
        write_file(tmp_path / "class/infiniband_mad/issm0/ibdev", "mlx5_0\n")
        write_file(tmp_path / "class/infiniband_mad/issm0/port", "1\n")
        (tmp_path / "class/infiniband_mad/umadx").mkdir()
        assert found(tmp_path) == ["mlx5_0/1"]

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("ibdev", ""),
            ("ibdev", "../../etc\n"),
            ("ibdev", "a" * 65 + "\n"),
            ("ibdev", "ml\x00x5\n"),
            ("ibdev", "mlx5_0\nmlx5_1\n"),
            ("port", "0\n"),
            ("port", "256\n"),
            ("port", "-1\n"),
            ("port", "one\n"),
        ],
    )
    def test_an_odd_entry_is_left_out(self, tmp_path: Path, file: str, text: str) -> None:
        make_port(tmp_path, "mlx5_0", 1, 0)
        make_port(tmp_path, "mlx5_1", 1, 1)
        write_file(tmp_path / "class/infiniband_mad/umad1" / file, text)
        assert found(tmp_path) == ["mlx5_0/1"]

    def test_an_entry_that_vanishes_meanwhile_is_left_out(self, tmp_path: Path) -> None:
        make_port(tmp_path)
        (tmp_path / "class/infiniband_mad/umad1").mkdir()
        assert found(tmp_path) == ["mlx5_0/1"]

    @pytest.mark.parametrize(("text", "shown"), [("6\n", "'6'"), ("", "unreadable"), ("five\n", "'five'")])
    def test_another_abi_is_refused(self, tmp_path: Path, text: str, shown: str) -> None:
        make_port(tmp_path)
        write_file(tmp_path / "class/infiniband_mad/abi_version", text)
        with pytest.raises(UmadAbiError, match=rf"abi_version .*{shown}.* version 5"):
            find_ports(tmp_path, DEV)


IDENTITY = PortIdentity(
    device="mlx5_0",
    port=1,
    node_guid=0x0002C90300000010,
    port_guid=0x0002C90300000011,
    gid=Gid(0xFE80 << 48, 0x0002C90300000011),
    lid=0x11,
    sm_lid=1,
    sm_sl=0,
    state=LinkState.ACTIVE,
    pkeys=(0xFFFF, 0x8001, 0),
)


class TestIdentity:
    def test_everything(self, tmp_path: Path) -> None:
        make_port(tmp_path)
        assert PortFiles("mlx5_0", 1, tmp_path).identity() == IDENTITY

    def test_a_prefix_of_another_devices_name_is_not_that_device(self, tmp_path: Path) -> None:
        make_port(tmp_path, "mlx4_1", lid="0x1")
        make_port(tmp_path, "mlx4_10", lid="0x10")
        assert PortFiles("mlx4_1", 1, tmp_path).identity().lid == 1
        assert PortFiles("mlx4_10", 1, tmp_path).identity().lid == 16

    @pytest.mark.parametrize(
        ("text", "state"),
        [
            ("1: DOWN", LinkState.DOWN),
            ("2: INIT", LinkState.INIT),
            ("3: ARMED", LinkState.ARMED),
            ("4: ACTIVE", LinkState.ACTIVE),
            ("5: ACTIVE_DEFER", LinkState.ACTIVE),
            ("0: NOP", LinkState.DOWN),
            ("9: NEW", LinkState.DOWN),
            ("ACTIVE", LinkState.DOWN),
            ("", LinkState.DOWN),
        ],
    )
    def test_states(self, tmp_path: Path, text: str, state: LinkState) -> None:
        make_port(tmp_path, state=text)
        assert PortFiles("mlx5_0", 1, tmp_path).identity().state is state

    @pytest.mark.parametrize(("text", "sl"), [("0", 0), ("10", 10), ("0xa", 10), ("16", 0), ("a", 0), ("-1", 0)])
    def test_the_sms_service_level(self, tmp_path: Path, text: str, sl: int) -> None:
        """Linux writes it in decimal; a 0x would say otherwise."""
        make_port(tmp_path, sm_sl=text)
        assert PortFiles("mlx5_0", 1, tmp_path).identity().sm_sl == sl

    @pytest.mark.parametrize("text", ["0x10000", "0x", "eleven", "", "0x11 0x12"])
    def test_an_odd_lid_is_none(self, tmp_path: Path, text: str) -> None:
        make_port(tmp_path, lid=text)
        assert PortFiles("mlx5_0", 1, tmp_path).identity().lid == 0

    @pytest.mark.parametrize(
        ("text", "layer"), [("InfiniBand", LinkLayer.INFINIBAND), ("Ethernet", LinkLayer.ETHERNET)]
    )
    def test_link_layers(self, tmp_path: Path, text: str, layer: LinkLayer) -> None:
        make_port(tmp_path, link_layer=text)
        assert PortFiles("mlx5_0", 1, tmp_path).identity().link_layer is layer

    def test_old_kernels_have_no_link_layer(self, tmp_path: Path) -> None:
        (make_port(tmp_path) / "link_layer").unlink()
        assert PortFiles("mlx5_0", 1, tmp_path).identity() == IDENTITY

    def test_a_roce_port(self, tmp_path: Path) -> None:
        make_port(
            tmp_path,
            link_layer="Ethernet",
            lid="0x0",
            sm_lid="0x0",
            gids__0="fe80:0000:0000:0000:526b:4bff:fec8:c0fa",
        )
        identity = PortFiles("mlx5_0", 1, tmp_path).identity()
        assert (identity.link_layer, identity.lid, identity.gid.guid) == (LinkLayer.ETHERNET, 0, 0x526B4BFFFEC8C0FA)

    def test_the_pkey_table_keeps_its_holes_and_numbers(self, tmp_path: Path) -> None:
        folder = make_port(tmp_path, pkeys__1="what", pkeys__10="0x7fff", pkeys__12="0x18001")
        write_file(folder / "pkeys" / "x", "0xffff\n")
        assert PortFiles("mlx5_0", 1, tmp_path).identity().pkeys == (0xFFFF, *[0] * 9, 0x7FFF, 0, 0)

    def test_missing_files_are_unknown(self, tmp_path: Path) -> None:
        (tmp_path / "class/infiniband/mlx5_0/ports/1").mkdir(parents=True)
        assert PortFiles("mlx5_0", 1, tmp_path).identity() == PortIdentity(
            "mlx5_0", 1, 0, 0, Gid(0, 0), 0, 0, 0, LinkState.DOWN, ()
        )

    def test_a_port_that_is_not_there(self, tmp_path: Path) -> None:
        make_port(tmp_path)
        with pytest.raises(MadPortGoneError, match="mlx5_0/2: there is no such port"):
            PortFiles("mlx5_0", 2, tmp_path).identity()

    def test_the_dear_parts_can_be_kept(self, tmp_path: Path) -> None:
        folder = make_port(tmp_path)
        files = PortFiles("mlx5_0", 1, tmp_path)
        write_file(folder / "pkeys/0", "0x7fff\n")
        write_file(folder / "lid", "0x12\n")
        assert files.identity(IDENTITY) == replace(IDENTITY, lid=0x12)
        assert files.identity() == replace(IDENTITY, lid=0x12, pkeys=(0x7FFF, 0x8001, 0))

    @pytest.mark.parametrize(("device", "port"), [("../mlx5_0", 1), ("", 1), ("a" * 64, 1), ("mlx5_0", 0), (".", 1)])
    def test_names_that_lead_elsewhere_are_refused(self, device: str, port: int) -> None:
        with pytest.raises(ValueError, match="no name of an RDMA device's port"):
            PortFiles(device, port)
