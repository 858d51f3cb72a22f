"""The architecture as tests: who may import whom, what the pure layers may not touch, and how long a file may be."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "srpha"
LONGEST_FILE = 600

LOWER_LAYERS = {
    "wire": {"wire"},
    "core": {"core", "wire"},
    "kernel": {"kernel", "core", "wire"},
    "embedded": {"embedded", "core", "wire"},
    "daemon": {"daemon", "kernel", "embedded", "core", "wire"},
    "operate": {"operate", "daemon", "kernel", "embedded", "core", "wire"},
    "lab": {"lab", "operate", "daemon", "embedded", "core", "wire"},
    "cli": {"cli", "lab", "operate", "daemon", "kernel", "embedded", "core", "wire"},
}
"""Which layers a layer may import from; downwards, and never between kernel and embedded. The lab runs the
daemon in an embedded world under the same operating interface; it does not know the kernel world."""

PURE = {"wire", "core"}
OUTER_WORLD = {
    "asyncio",
    "concurrent",
    "ctypes",
    "datetime",
    "fcntl",
    "fileinput",
    "glob",
    "http",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "prometheus_client",
    "pyroute2",
    "rich",
    "sched",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "socketserver",
    "sqlite3",
    "ssl",
    "starlette",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "typer",
    "urllib",
    "uuid",
    "uvicorn",
}
"""Top-level modules that bring I/O, threads, clocks or unseeded chance; none belongs in a pure layer."""

OUTER_BUILTINS = {"open", "input", "print", "breakpoint"}
WEB_STACK = ["starlette", "uvicorn", "pydantic", "sqlite3"]


def faults_in(tree: ast.Module, layer: str | None) -> list[str]:
    """What a module of ``layer`` (None: directly under the package) does against the rules, by line."""
    faults: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            faults.append((node.lineno, "relative import"))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [alias.name for alias in node.names]
            # `from srpha import core` names its layer only in the list
            targets = [f"{module}.{name}" for name in names] if module == "srpha" else [module]
            faults += [(node.lineno, fault) for target in targets for fault in import_faults(target, layer)]
            if module == "random" and set(names) - {"Random"}:
                faults.append((node.lineno, "takes more than Random from random: chance comes from a Random handed in"))
        elif isinstance(node, ast.Import):
            faults += [(node.lineno, fault) for alias in node.names for fault in import_faults(alias.name, layer)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "random" and node.attr != "Random" and imports_random(tree):
                faults.append((node.lineno, f"random.{node.attr}: chance comes from a Random handed in"))
        elif layer in PURE and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            faults += [(node.lineno, f"{layer} calls {node.func.id}()")] if node.func.id in OUTER_BUILTINS else []
    return [f"{line}: {fault}" for line, fault in sorted(faults)]


def import_faults(target: str, layer: str | None) -> list[str]:
    top, _, rest = target.partition(".")
    if layer is None:
        return []
    if top == "srpha":
        other = rest.partition(".")[0]
        if other in LOWER_LAYERS and other not in LOWER_LAYERS[layer]:
            return [f"{layer} imports {other}"]
    elif layer in PURE and top in OUTER_WORLD:
        return [f"{layer} imports {top}"]
    return []


def imports_random(tree: ast.Module) -> bool:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return any(alias.name == "random" and alias.asname is None for node in imports for alias in node.names)


def faults_of_package(package: pathlib.Path) -> list[str]:
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        layer = inside.parts[0] if len(inside.parts) > 1 else None
        if layer is not None and layer not in LOWER_LAYERS:
            found.append(f"{inside}: {layer} is no layer")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        found += [f"{inside}:{fault}" for fault in faults_in(tree, layer)]
    return found


def long_files(root: pathlib.Path, folders: list[str], longest: int) -> list[str]:
    lengths = {
        path.relative_to(root): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
    }
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > longest]


def test_imports_point_downwards() -> None:
    assert faults_of_package(PACKAGE) == []


def test_every_layer_exists() -> None:
    """So that a renamed layer does not make the rule above empty."""
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(LOWER_LAYERS)


def test_no_file_is_too_long() -> None:
    assert long_files(ROOT, ["src", "tests", "tools", "benchmarks"], LONGEST_FILE) == []


def test_the_command_line_starts_without_the_web_stack() -> None:
    if not (PACKAGE / "cli" / "main.py").exists():
        pytest.skip("srpha.cli.main does not exist yet")
    program = f"import sys, srpha.cli.main; print([name for name in {WEB_STACK!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def plant(tmp_path: pathlib.Path) -> Callable[[str, str], list[str]]:
    """Write one file into an empty package and give what the checker finds."""

    def write(path: str, text: str) -> list[str]:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return faults_of_package(tmp_path)

    return write


class TestThePlantedFaultsAreCaught:
    @pytest.mark.parametrize(
        ("path", "line", "fault"),
        [
            ("wire/a.py", "import srpha.core.targets.rules", "wire imports core"),
            ("wire/deep/a.py", "from srpha.core.targets import rules", "wire imports core"),
            ("core/a.py", "from srpha import daemon", "core imports daemon"),
            ("kernel/a.py", "from srpha.embedded.target import x", "kernel imports embedded"),
            ("embedded/a.py", "from srpha.kernel import x", "embedded imports kernel"),
            ("daemon/a.py", "from srpha.operate import x", "daemon imports operate"),
            ("operate/a.py", "from srpha.cli.main import main", "operate imports cli"),
            ("core/a.py", "import asyncio", "core imports asyncio"),
            ("core/a.py", "import concurrent.futures", "core imports concurrent"),
            ("wire/a.py", "from socket import socket", "wire imports socket"),
            ("core/a.py", "import time as t", "core imports time"),
            ("core/a.py", "from datetime import datetime", "core imports datetime"),
            ("core/a.py", "import threading", "core imports threading"),
            ("core/a.py", "from pathlib import Path", "core imports pathlib"),
            ("core/a.py", "import os.path", "core imports os"),
            ("core/a.py", "import io", "core imports io"),
            ("wire/a.py", "open('x')", "wire calls open()"),
            ("core/a.py", "from . import rules", "relative import"),
            ("cli/a.py", "from ..core import rules", "relative import"),
            ("elsewhere/a.py", "", "elsewhere is no layer"),
        ],
    )
    def test_in_one_line(self, plant: Callable[[str, str], list[str]], path: str, line: str, fault: str) -> None:
        (found,) = plant(path, line)
        assert found.startswith(path)
        assert found.endswith(fault)

    def test_inside_a_function(self, plant: Callable[[str, str], list[str]]) -> None:
        assert plant("core/a.py", "def late():\n    import time\n") == ["core/a.py:2: core imports time"]

    def test_for_type_checkers_only(self, plant: Callable[[str, str], list[str]]) -> None:
        text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from srpha.cli import main\n"
        assert plant("daemon/a.py", text) == ["daemon/a.py:3: daemon imports cli"]

    @pytest.mark.parametrize("text", ["import random\nrandom.random()", "\nfrom random import Random, choice"])
    def test_the_global_random_generator(self, plant: Callable[[str, str], list[str]], text: str) -> None:
        (found,) = plant("embedded/a.py", text)
        assert found.startswith("embedded/a.py:2:")
        assert "handed in" in found

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("core/a.py", "from srpha.wire.mad import x\nfrom random import Random\nimport struct"),
            ("core/a.py", "import random\nrng = random.Random(1)\nrng.random()"),
            ("core/a.py", "def pick(random):\n    return random.choice([1])"),
            ("kernel/a.py", "import asyncio, socket, os\nfrom srpha.core import x"),
            ("daemon/a.py", "from srpha.kernel import x\nfrom srpha.embedded import y"),
            ("__init__.py", "__version__ = '1'"),
        ],
    )
    def test_but_what_is_allowed_is_not(self, plant: Callable[[str, str], list[str]], path: str, text: str) -> None:
        assert plant(path, text) == []

    def test_a_long_file(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "fits.py").write_text("x = 1\n" * 5, encoding="utf-8")
        (tmp_path / "src" / "long.py").write_text("x = 1\n" * 6, encoding="utf-8")
        assert long_files(tmp_path, ["src"], 5) == ["src/long.py: 6 lines"]
