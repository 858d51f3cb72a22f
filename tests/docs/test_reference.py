"""What docs/ draws from the program is up to date and complete: ``.venv/bin/python -m tools.reference`` makes it so."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from srpha.embedded.fabric.faults import FAULT_USAGE, LinkDown
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.lab import Lab, LabSettings
from srpha.lab.scenario import Scenario, ScenarioSettings
from srpha.lab.workload import WorkloadSettings
from srpha.operate.client import Json
from srpha.operate.control import control_app
from srpha.operate.documents import discover_document, event_document, paths_document, status_document
from srpha.operate.event_log import EventLog
from srpha.operate.plan_document import plan_document
from srpha.operate.service import Service
from tools.reference.json_keys import KEYS, keys_in
from tools.reference.pages import DOCS, PARTS, stale
from tools.reference.world_keys import meanings


def test_pages_are_up_to_date() -> None:
    assert [str(path.relative_to(DOCS)) for path in stale()] == [], "run: .venv/bin/python -m tools.reference"


def test_a_page_out_of_date_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- from the program: faults -->\nold\n<!-- end -->\n", encoding="utf-8")
    (tmp_path / "design").mkdir()
    assert page in stale(tmp_path)


def test_every_part_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    shown = set(re.findall(r"<!-- from the program: ([^>]+?) -->", text))
    assert shown == set(PARTS)


def test_every_key_of_a_world_file_is_described() -> None:
    described, there = meanings()
    assert described == there


def test_every_fault_is_in_the_guide() -> None:
    guide = (DOCS / "how-to" / "inject-faults.md").read_text(encoding="utf-8")
    injected = set(re.findall(r"^\$ srpha lab fault ([a-z-]+)", guide, re.MULTILINE))
    assert injected == set(FAULT_USAGE)


def test_every_control_resource_is_listed() -> None:
    app = control_app({}, EventLog())
    routes = {(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}}
    listed = set(re.findall(r"^\| (GET|POST) \| `(\S+)` \|", PARTS["control resources"](), re.MULTILINE))
    assert listed == routes


async def test_every_key_of_the_documents_is_described() -> None:
    seen: dict[str, set[str]] = {name: set() for name in KEYS}
    lab = Lab(WorldSpec.demo(), LabSettings(load=None))
    (host,) = lab.hosts.values()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        await asyncio.sleep(10)
        for _ in range(2):  # with all paths, and with a cable out
            snapshot = host.supervisor.snapshot()
            for name, document in (
                ("status", status_document(snapshot, host.name)),
                ("paths", {"host": host.name, **paths_document(snapshot)}),
                ("plan", {"host": host.name, **plan_document(snapshot)}),
                ("discover", {"host": host.name, **discover_document(snapshot)}),
            ):
                seen[name].update(keys_in(json.loads(json.dumps(document))))
            lab.world.faults.apply(LinkDown(PortRef("host1-a", 1)))
            await asyncio.sleep(5)
        for logged in lab.log:
            seen["events"].update(keys_in(json.loads(json.dumps(event_document(logged)))))
        running.cancel()
    for name in ("status", "paths", "plan", "discover", "events"):
        assert _without_parents(seen[name]) == set(KEYS[name]), name


async def test_every_key_of_a_drain_is_described() -> None:
    lab = Lab(WorldSpec.demo(), LabSettings(load=None))
    app = control_app({name: host.supervisor for name, host in lab.hosts.items()}, EventLog())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        await asyncio.sleep(10)
        for resource in ("drain", "resume"):
            answer = await _post(app, f"/v1/{resource}", {"port": "mlx5_0/1"})
            assert answer["paths"]
            assert set(keys_in(answer)) == set(KEYS["drain"])
        running.cancel()


@pytest.mark.parametrize("name", ["reload", "shutdown"])
def test_every_key_of_an_answer_of_the_service_is_described(name: str) -> None:
    source = textwrap.dedent(inspect.getsource(getattr(Service, f"{name}_document")))
    (answer,) = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Return))
    keys = {key.value for node in ast.walk(answer) if isinstance(node, ast.Dict) for key in node.keys}  # type: ignore
    assert keys == {part for key in KEYS[name] for part in key.split("[].")}


async def _post(app: Starlette, path: str, body: Json) -> dict[str, Json]:
    said = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: Message) -> None:
        said.extend(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    answer = json.loads(said)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.virtual_limit(7200)
async def test_every_key_of_the_demo_report_is_described() -> None:
    lab = Lab(WorldSpec.demo(), LabSettings(load=WorkloadSettings(workers=1, mean_pause=0.05)))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        report = await Scenario(lab, ScenarioSettings(quiet=0.1, outage=0.1)).run()
        running.cancel()
    assert _without_parents(set(keys_in(json.loads(json.dumps(report.document()))))) == set(KEYS["demo"])


def _without_parents(keys: set[str]) -> set[str]:
    """Keys without those that were null or empty in one place and had keys of their own in another."""
    return {key for key in keys if not any(other.startswith((f"{key}.", f"{key}[]")) for other in keys)}
