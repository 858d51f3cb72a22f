import pytest

from srpha.wire import srp_ports
from srpha.wire.errors import DecodeError, EncodeError

INITIATOR = bytes.fromhex("ed2b400002c902000002c90300001111")
TARGET = bytes.fromhex("200500a0b81146a10002c90200402bec")


def test_port_ids() -> None:
    ext, guid = 0x200500A0B81146A1, 0x0002C90200402BEC
    assert srp_ports.target_port_id(ext, guid) == TARGET
    assert srp_ports.target_port_id(ext, guid, srp_ports.IO_CLASS_REV10) == TARGET[8:] + TARGET[:8]
    assert srp_ports.initiator_port_id(0xED2B400002C90200, 0x0002C90300001111) == INITIATOR
    for io_class in (srp_ports.IO_CLASS_REV10, srp_ports.IO_CLASS_REV16A):
        assert srp_ports.split_port_id(srp_ports.target_port_id(ext, guid, io_class), io_class) == (ext, guid)
    with pytest.raises(EncodeError):
        srp_ports.target_port_id(ext, guid, 5)
    with pytest.raises(EncodeError):
        srp_ports.target_port_id(1 << 64, guid)
    with pytest.raises(DecodeError):
        srp_ports.split_port_id(bytes(15))
