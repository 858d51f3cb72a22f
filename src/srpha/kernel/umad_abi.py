"""The user MAD character device's ABI, version 5, bytes only (Linux ``rdma/ib_user_mad.h``; facts: srp E).

Numbers of the structures are in the machine's byte order except where the header says network order. The MAD follows
the header in what is written and read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import GSI_QKEY, MadAddress
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid

ABI_VERSION: Final = 5

REGISTER_AGENT: Final = 0xC01C1B01
ENABLE_PKEY: Final = 0x1B03
REGISTER_AGENT2: Final = 0xC0281B04

HEADER_LENGTH: Final = 64
"""Length of ``ib_user_mad_hdr`` once ENABLE_PKEY has been called."""
TIMED_OUT: Final = 110
"""Header status of a request that got no answer: ETIMEDOUT."""
TIMED_OUT_LENGTH: Final = 24
"""The MAD behind such a header is the common header of the request."""
HOP_LIMIT: Final = 64
"""Of outgoing GRHs: enough for any route, and a packet lost in a loop still dies."""

_U32_MAX: Final = 0xFFFFFFFF
_METHODS: Final = 128

# id, status, timeout_ms, retries, length; then in network order qpn, qkey, lid, sl, path_bits, grh_present, gid_index,
# hop_limit, traffic_class, gid, flow_label; then natively pkey_index.
_NATIVE: Final = struct.Struct("=5I")
_NETWORK: Final = struct.Struct(">IIHBBBBBB16sI")
_PKEY_INDEX: Final = struct.Struct("=H6x")

_AGENT: Final = struct.Struct("=I16sBBB3sB1x")
_AGENT2: Final = struct.Struct("=IIBBHI2QIB3x")


@dataclass(frozen=True, slots=True)
class Agent:
    """What a registration asks for; ``methods`` are those of unsolicited MADs to be handed over."""

    mgmt_class: int
    class_version: int
    rmpp_version: int = 0
    methods: tuple[int, ...] = ()
    qpn: int = 1

    @property
    def method_mask(self) -> int:
        """128 bits, bit n for method n."""
        mask = 0
        for method in self.methods:
            if not 0 <= method < _METHODS:
                raise EncodeError(f"method {method:#x} is no request")
            mask |= 1 << method
        return mask


def registration2(agent: Agent) -> bytearray:
    """``ib_user_mad_reg_req2``, 40 bytes; the kernel puts the agent's ID into the first four."""
    mask = agent.method_mask
    return bytearray(
        _AGENT2.pack(
            0,
            agent.qpn,
            agent.mgmt_class,
            agent.class_version,
            0,
            0,
            mask & (1 << 64) - 1,
            mask >> 64,
            0,
            agent.rmpp_version,
        )
    )


def registration(agent: Agent) -> bytearray:
    """``ib_user_mad_reg_req``, 28 bytes, for kernels before 3.18; the ID comes back as above."""
    # The mask is an array of longs: on a little-endian machine, and on any 64-bit one, eight bytes in native order.
    mask = agent.method_mask
    words = struct.pack("=2Q", mask & (1 << 64) - 1, mask >> 64)
    return bytearray(
        _AGENT.pack(0, words, agent.qpn, agent.mgmt_class, agent.class_version, bytes(3), agent.rmpp_version)
    )


def registered_id(request: bytes | bytearray) -> int:
    """The agent's ID that the kernel wrote into either form."""
    return int(struct.unpack_from("=I", request)[0])


def packet(agent_id: int, address: MadAddress, mad: bytes, *, timeout_ms: int = 0, retries: int = 0) -> bytes:
    """What is written to send ``mad``. ``timeout_ms`` 0: no answer is expected. A GID in ``address`` means a GRH."""
    limits = (
        ("agent", agent_id, _U32_MAX),
        ("timeout", timeout_ms, _U32_MAX),
        ("number of retries", retries, _U32_MAX),
        ("LID", address.lid, 0xFFFF),
        ("QPN", address.qpn, 0xFFFFFF),
        ("Q_Key", address.qkey, _U32_MAX),
        ("SL", address.sl, 15),
        ("P_Key index", address.pkey_index, 0xFFFF),
        ("GID index", address.gid_index, 0xFF),
    )
    for name, value, largest in limits:
        if not 0 <= value <= largest:
            raise EncodeError(f"{name} {value} does not fit a MAD's header (0 to {largest})")
    with_grh = address.gid is not None
    return b"".join(
        (
            _NATIVE.pack(agent_id, 0, timeout_ms, retries, HEADER_LENGTH + len(mad)),
            _NETWORK.pack(
                address.qpn,
                address.qkey,
                address.lid,
                address.sl,
                0,
                with_grh,
                address.gid_index if with_grh else 0,
                HOP_LIMIT if with_grh else 0,
                0,
                address.gid.packed if address.gid is not None else bytes(16),
                0,
            ),
            _PKEY_INDEX.pack(address.pkey_index),
            mad,
        )
    )


@dataclass(frozen=True, slots=True)
class Received:
    """One read: the agent it is for, its status (0 or an errno), where it came from, and the MAD."""

    agent_id: int
    status: int
    source: MadAddress
    mad: bytes


def read_packet(data: bytes | bytearray | memoryview) -> Received:
    """Split what was read. The kernel does not tell a Q_Key: it is that of the General Service Interface."""
    if len(data) < HEADER_LENGTH:
        raise DecodeError(f"a user MAD starts with {HEADER_LENGTH} bytes of header, got {len(data)}")
    agent_id, status, _, _, _ = _NATIVE.unpack_from(data, 0)
    qpn, _, lid, sl, _, grh, gid_index, _, _, gid, _ = _NETWORK.unpack_from(data, 20)
    (pkey_index,) = _PKEY_INDEX.unpack_from(data, 56)
    source = MadAddress(
        lid=lid,
        qpn=qpn,
        qkey=GSI_QKEY,
        sl=sl,
        pkey_index=pkey_index,
        gid=Gid.from_bytes(gid) if grh else None,
        gid_index=gid_index if grh else 0,
    )
    return Received(agent_id, status, source, bytes(data[HEADER_LENGTH:]))


def wanted_length(header: bytes | bytearray | memoryview) -> int:
    """Bytes that the read which failed with ENOSPC needs: the header is there all the same."""
    return int(_NATIVE.unpack_from(header, 0)[4])
