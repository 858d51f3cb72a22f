"""Reasons of a CM REJ with text and advice for an operator (IBA volume 1, 12.6.7.2)."""

from __future__ import annotations

from enum import IntEnum


class RejectReason(IntEnum):
    """REJ reason codes; :attr:`text` says what happened and :attr:`remedy` what to do about it."""

    text: str
    remedy: str

    def __new__(cls, value: int, text: str, remedy: str) -> RejectReason:
        """Make a member that carries its text and its advice."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        member.remedy = remedy
        return member

    NO_QP = (
        1,
        "no QP available",
        "the target is out of queue pairs; lower ch_count or log out idle initiators",
    )
    NO_EEC = (
        2,
        "no EE context available",
        "reliable datagrams are not SRP; check the target",
    )
    NO_RESOURCES = (
        3,
        "no resources available",
        "the target has no room for more channels; set ch_count to 1 or 2 or raise the target's session limit",
    )
    TIMEOUT = 4, "timeout", "the target did not finish the handshake in time; check its load and the path to it"
    UNSUPPORTED = 5, "unsupported request", "the target does not understand this CM message; check its firmware"
    INVALID_COMM_ID = 6, "invalid communication id", "the connection is unknown to the target; log in again"
    INVALID_COMM_INSTANCE = (
        7,
        "invalid communication instance",
        "the connection is an earlier one; log in again",
    )
    INVALID_SERVICE_ID = (
        8,
        "invalid service id",
        "nothing listens on this service_id; enable the target port, or discover it again",
    )
    INVALID_TRANSPORT = (
        9,
        "invalid transport service type",
        "the target refuses reliable connections; check its configuration",
    )
    STALE_CONNECTION = (
        10,
        "stale connection",
        "the target still holds a connection with this QP number; wait for its time-wait period, then log in again",
    )
    RDC_NOT_EXIST = 11, "RDC does not exist", "reliable datagrams are not SRP; check the target"
    INVALID_GID = 12, "primary remote port GID rejected", "dgid is not a port of this target; discover it again"
    INVALID_LID = (
        13,
        "primary remote port LID rejected",
        "the path's LID is out of date; ask the SA again",
    )
    INVALID_SL = 14, "invalid primary SL", "the path's service level is not allowed; check QoS on the subnet manager"
    INVALID_TRAFFIC_CLASS = 15, "invalid primary traffic class", "check the QoS setting of the subnet manager"
    INVALID_HOP_LIMIT = 16, "invalid primary hop limit", "check the router setting of the subnet manager"
    INVALID_PACKET_RATE = (
        17,
        "invalid primary packet rate",
        "the path's rate exceeds the target port's",
    )
    INVALID_ALT_GID = 18, "alternate remote port GID rejected", "the alternate path is not to this target"
    INVALID_ALT_LID = 19, "alternate remote port LID rejected", "the LID of the alternate path is out of date"
    INVALID_ALT_SL = 20, "invalid alternate SL", "the alternate path's service level is not allowed"
    INVALID_ALT_TRAFFIC_CLASS = 21, "invalid alternate traffic class", "check the QoS setting of the subnet manager"
    INVALID_ALT_HOP_LIMIT = 22, "invalid alternate hop limit", "check the router setting of the subnet manager"
    INVALID_ALT_PACKET_RATE = 23, "invalid alternate packet rate", "check the SA's alternate path record"
    PORT_CM_REDIRECT = 24, "port and CM redirection", "log in to the port named in the additional information"
    PORT_REDIRECT = 25, "port redirection", "log in to the port named in the additional information"
    INVALID_MTU = 26, "invalid path MTU", "the path's MTU exceeds the target's port; check the SA's path record"
    INSUFFICIENT_RESPONDER_RESOURCES = (
        27,
        "insufficient responder resources",
        "the target wants fewer RDMA reads in flight than the initiator offers",
    )
    CONSUMER_DEFINED = 28, "consumer reject", "the target's SRP layer refused the login; its SRP_LOGIN_REJ tells why"
    INVALID_RNR_RETRY = 29, "RNR retry count reject", "the target refuses the RNR retry count"
    DUPLICATE_LOCAL_COMM_ID = (
        30,
        "duplicate local communication id",
        "log in again with a new id",
    )
    INVALID_CLASS_VERSION = 31, "invalid class version", "the target speaks another CM version; check its firmware"
    INVALID_FLOW_LABEL = 32, "invalid primary flow label", "check the router setting of the subnet manager"
    INVALID_ALT_FLOW_LABEL = 33, "invalid alternate flow label", "check the router setting of the subnet manager"


def describe_reject(reason: int) -> str:
    """One line for an operator: number, meaning and advice; an unknown number is shown as such."""
    known = RejectReason._value2member_map_.get(reason)
    if not isinstance(known, RejectReason):
        return f"CM REJ reason {reason}: unknown reason"
    return f"CM REJ reason {reason}: {known.text} ({known.remedy})"
