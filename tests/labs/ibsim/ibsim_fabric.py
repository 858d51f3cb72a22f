"""A fabric of Debian's ibsim under Debian's OpenSM, and programs attached to its nodes through the umad shim.

Everything lives in abstract sockets of a name space of its own and in the test's folder; only processes started here
are ever stopped.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = Path("/usr/share/doc/ibsim-utils/net-examples")
_numbers = itertools.count()

_CAPABILITIES = (
    # HCA ports of ibsim, up and down, without and with IsDeviceManagementSupported (bit 19 of CapabilityMask)
    (0x0050C048, 0x0058C048),
    (0x0010C048, 0x0018C048),
)


class LabError(Exception):
    """The lab cannot do what is asked; not a fault of what is tested."""


def build_shims(folder: Path) -> dict[str, Path]:
    """Compile the libraries; what cannot be built for want of headers is left out."""
    built = {}
    for name in ("umad_shim", "verbs_shim"):
        library = folder / f"{name}.so"
        done = subprocess.run(
            [
                "gcc",
                "-O2",
                "-Wall",
                "-Wextra",
                "-shared",
                "-fPIC",
                "-o",
                library,
                HERE / f"{name}.c",
                "-ldl",
                "-lpthread",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and not done.stderr:
            built[name] = library
        elif "No such file or directory" not in done.stderr:
            raise LabError(done.stderr)
    return built


def ibsim_with_agents(source: Path, folder: Path) -> Path:
    """A copy of ibsim whose HCA ports say that they have a Device Management agent: it has no command for that."""
    program = bytearray(source.read_bytes())
    for without, having in _CAPABILITIES:
        mask = without.to_bytes(4, "big")
        if program.count(mask) != 1:
            raise LabError(f"{source} holds the capability mask {without:#010x} {program.count(mask)} times, not once")
        place = program.index(mask)
        program[place : place + 4] = having.to_bytes(4, "big")
    copy = folder / "ibsim"
    copy.write_bytes(program)
    copy.chmod(0o755)
    return copy


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait in real time: the programs waited for know no other."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def srpha(*arguments: str) -> list[str]:
    """The command line of the installed command."""
    return [sys.executable, "-c", "import sys; from srpha.cli.entry import main; sys.exit(main())", *arguments]


@dataclass(frozen=True)
class Flags:
    """How the shim behaves for a program."""

    requests: bool = False
    fast_fail: bool = True
    old_sm: bool = False

    @property
    def environment(self) -> dict[str, str]:
        names = {"REQUESTS": self.requests, "FAST_FAIL": self.fast_fail, "OLD_SM": self.old_sm}
        return {f"UMAD_SHIM_{name}": "1" for name, value in names.items() if value}


USUAL = Flags()
SLOW = Flags(fast_fail=False)
"""What is not there times out, as with hardware."""


class Fabric:
    """One simulated subnet. ``topology`` is a file in ibsim's format; OpenSM runs on ``sm_node``."""

    def __init__(self, folder: Path, ibsim: Path, shims: dict[str, Path], topology: Path, sm_node: str) -> None:
        self.name = f"srpha{os.getpid()}n{next(_numbers)}"
        self.sm_node = sm_node
        self._folder = folder
        self._shims = shims
        self._sm: subprocess.Popen[bytes] | None = None
        self._sm_log = folder / "opensm.log"
        self._tree = folder / "sysfs"
        self._tree.mkdir(parents=True)
        with (folder / "ibsim.log").open("wb") as log:
            # the console stays open as long as we live: at its end ibsim ends too
            self._ibsim = subprocess.Popen(
                [ibsim, "-s", topology],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"IBSIM_SOCKNAME": self.name},
            )
        wait_for("ibsim", self._listens)

    def _listens(self) -> bool:
        if self._ibsim.poll() is not None:
            raise LabError(f"ibsim ended: {(self._folder / 'ibsim.log').read_text()[-500:]}")
        return f"@{self.name}:ctl" in Path("/proc/net/unix").read_text()

    def console(self, command: str) -> None:
        """Give ibsim a command, for example ``Unlink "node"``."""
        assert self._ibsim.stdin is not None
        self._ibsim.stdin.write(command.encode() + b"\n")
        self._ibsim.stdin.flush()

    def environment(self, hosts: Sequence[str], flags: Flags = USUAL) -> dict[str, str]:
        """For a program attached to ``hosts`` (``node`` or ``node=device``)."""
        return (
            os.environ
            | {
                "IBSIM_SOCKNAME": self.name,
                "UMAD_SHIM_HOSTS": ",".join(hosts),
                "UMAD_SHIM_TREE": str(self._tree),
                "LD_PRELOAD": " ".join(map(str, self._shims.values())),
                "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path[1:]]),
            }
            | flags.environment
        )

    def start_sm(self, *arguments: str, partitions: str | None = None) -> None:
        """Start OpenSM and wait until the subnet is up."""
        self._sm_log.unlink(missing_ok=True)
        options = ["-f", str(self._sm_log), "-e", "--debug", "2", *arguments]  # 2: flush the log after each line
        if partitions is not None:
            (self._folder / "partitions.conf").write_text(partitions)
            options += ["-P", str(self._folder / "partitions.conf")]
        work = {"OSM_TMP_DIR": str(self._folder), "OSM_CACHE_DIR": str(self._folder)}
        with (self._folder / "opensm.out").open("wb") as out:
            self._sm = subprocess.Popen(
                ["opensm", *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment([self.sm_node], Flags(requests=True, fast_fail=False)) | work,
            )
        wait_for("OpenSM's first sweep", lambda: self.sweeps() > 0)

    def sweeps(self) -> int:
        """How often OpenSM has finished a sweep that changed something."""
        if self._sm is not None and self._sm.poll() is not None:
            raise LabError(f"OpenSM ended: {(self._folder / 'opensm.out').read_text()[-500:]}")
        return self._sm_log.read_text(errors="replace").count("SUBNET UP") if self._sm_log.exists() else 0

    def stop_sm(self) -> None:
        """End OpenSM."""
        if self._sm is not None:
            _end(self._sm)
            self._sm = None

    def unlink(self, node: str) -> None:
        """Take a node off the fabric and wait until the SM knows."""
        self._and_swept(f'Unlink "{node}"')

    def relink(self, node: str) -> None:
        """The reverse."""
        self._and_swept(f'ReLink "{node}"')

    def _and_swept(self, command: str) -> None:
        before = self.sweeps()
        self.console(command)
        wait_for(f"a sweep after {command}", lambda: self.sweeps() > before)

    def start(self, hosts: Sequence[str], command: Sequence[str | Path], flags: Flags = USUAL) -> subprocess.Popen[str]:
        """Start a program on ``hosts``."""
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(hosts, flags),
        )

    def run(
        self, hosts: Sequence[str], command: Sequence[str | Path], flags: Flags = USUAL, *, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on ``hosts`` to its end; ``code`` None takes any exit code."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment(hosts, flags),
        )
        if code is not None and done.returncode != code:
            shown = shlex.join(map(str, command))
            raise AssertionError(f"{shown} gave {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}")
        return done

    def lines(self, hosts: Sequence[str], command: Sequence[str | Path], flags: Flags = USUAL) -> list[str]:
        """Output of a program, sorted; any exit code: the C tools give 1 when one target is silent."""
        return sorted(self.run(hosts, command, flags, code=None).stdout.splitlines())

    def close(self) -> None:
        self.stop_sm()
        assert self._ibsim.stdin is not None
        self._ibsim.stdin.close()
        _end(self._ibsim)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
