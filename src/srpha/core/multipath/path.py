"""A path as the decisions see it: who it is, how it is loaded, whether it may be used."""

from __future__ import annotations


class PathSlot:
    """A path of a map. Its load is kept by who sends I/O, its state by the map's state machine."""

    __slots__ = (
        "dev_t",
        "fail_count",
        "in_flight",
        "in_flight_bytes",
        "node_name",
        "pending",
        "priority",
        "relative_throughput",
        "serial",
        "target_port_group",
        "usable",
    )

    def __init__(
        self, dev_t: str, *, serial: str = "", node_name: bytes = b"", target_port_group: int | None = None
    ) -> None:
        self.dev_t = dev_t
        """``major:minor``."""
        self.serial = serial
        self.node_name = node_name
        """Name of the target, for ``group_by_node_name``."""
        self.target_port_group = target_port_group
        self.priority = 1
        self.relative_throughput = 1
        """0..100; 0 means: only when nothing better is left (service-time)."""
        self.in_flight = 0
        """I/Os sent and not completed."""
        self.in_flight_bytes = 0
        self.usable = True
        """dm-multipath's state: active, else failed."""
        self.pending = False
        """The device is blocked for a time that will end: it may be back soon."""
        self.fail_count = 0
        """How often the path has failed since it was added."""
