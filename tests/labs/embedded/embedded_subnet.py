"""An embedded world behind ibsim's sockets, and programs attached to its nodes through the lab's umad shim."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ibsim_fabric import HERE, USUAL, Flags

from srpha.embedded.fabric.faults import SmLoss
from srpha.embedded.ibsim.server import DEFAULT_LIMIT, IbsimServer
from srpha.embedded.world import World, WorldSettings
from srpha.embedded.worldspec import WorldSpec

_numbers = itertools.count()


async def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait in real time: the programs waited for know no other."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - outside programs set no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s for {what}") from None


@dataclass(frozen=True)
class Finished:
    """What a program left behind."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Subnet:
    """A running world, its server, and the programs on it."""

    def __init__(self, world: World, server: IbsimServer, shims: Mapping[str, Path], folder: Path) -> None:
        self.world = world
        self.server = server
        self._shims = shims
        self._folder = folder

    def environment(self, node: str, flags: Flags = USUAL, *, stock: Path | None = None) -> dict[str, str]:
        """For a program at ``node`` (``node=device``); ``stock`` is ibsim's own preload in place of the shims."""
        preload = [stock] if stock else self._shims.values()
        return (
            os.environ
            | {
                "IBSIM_SOCKNAME": self.server.base,
                "SIM_HOST": node,
                "UMAD_SHIM_HOSTS": node,
                "UMAD_SHIM_TREE": str(self._folder),
                "LD_PRELOAD": " ".join(map(str, preload)),
                "OSM_TMP_DIR": str(self._folder),
                "OSM_CACHE_DIR": str(self._folder),
                "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path[1:]]),
            }
            | flags.environment
        )

    @asynccontextmanager
    async def start(
        self, node: str, command: Sequence[str | Path], flags: Flags = USUAL, *, stock: Path | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A program that runs while the context lasts."""
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(node, flags, stock=stock),
            cwd=self._folder,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def run(
        self,
        node: str,
        command: Sequence[str | Path],
        flags: Flags = USUAL,
        *,
        code: int | None = 0,
        stock: Path | None = None,
        seconds: float = 60.0,
    ) -> Finished:
        """Run a program to its end; ``code`` None takes any exit code."""
        async with self.start(node, command, flags, stock=stock) as process, asyncio.timeout(seconds):
            output, errors = await process.communicate()
        assert process.returncode is not None
        done = Finished(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))
        if code is not None and done.code != code:
            raise AssertionError(f"{command} gave {done.code}, not {code}:\n{done.output}\n{done.errors}")
        return done


@asynccontextmanager
async def embedded_subnet(
    spec: WorldSpec,
    shims: Mapping[str, Path],
    folder: Path,
    *,
    limit: int = DEFAULT_LIMIT,
    managed: bool = True,
    settings: WorldSettings | None = None,
) -> AsyncIterator[Subnet]:
    """A world that is up and whose SA knows every target that is not late; or, not ``managed``, without a manager."""
    world = World(spec, random.Random(1), settings or WorldSettings(timer_floor=1e-3))
    base = f"srphae{os.getpid()}n{next(_numbers)}"
    server = IbsimServer(world.fabric, world.general_services, base, limit=limit)
    server.open()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.run()), group.create_task(server.run())]
        if managed:
            await world.ready()
            assert world.subnet_manager is not None
            await world.subnet_manager.sweep()
        else:
            await asyncio.sleep(0)  # the world has begun, its manager has sent nothing yet
            world.faults.apply(SmLoss())
        try:
            yield Subnet(world, server, shims, folder)
        finally:
            for task in tasks:
                task.cancel()
