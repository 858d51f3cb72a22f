from __future__ import annotations

from dataclasses import dataclass, field

from srpha.embedded.target.hold import Hold, HoldScope


@dataclass(eq=False)
class Command:
    lun: int = 0
    port: int = 0
    initiator_port_id: bytes = bytes(16)
    is_write: bool = True
    executed: list[object] = field(default_factory=list)

    def execute(self) -> None:
        self.executed.append(self)


def test_scopes() -> None:
    command = Command(lun=2, port=1, is_write=False)
    assert HoldScope().covers(command)
    assert HoldScope(lun=2, port=1, initiator_port_id=bytes(16)).covers(command)
    assert not HoldScope(lun=1).covers(command)
    assert not HoldScope(port=0).covers(command)
    assert not HoldScope(initiator_port_id=bytes(15) + b"\x01").covers(command)
    assert not HoldScope(writes_only=True).covers(command)


def test_release_executes_in_order_and_once() -> None:
    ended: list[Hold] = []
    hold = Hold(HoldScope(), ended.append)
    log: list[object] = []
    commands = [Command(executed=log) for _ in range(3)]
    for command in commands:
        hold.keep(command)
    hold.drop(commands[1])
    hold.drop(commands[1])
    assert len(hold) == 2
    hold.release()
    assert log == [commands[0], commands[2]]
    assert ended == [hold]
    assert len(hold) == 0
