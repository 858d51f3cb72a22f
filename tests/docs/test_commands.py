"""Every command line of the tutorial and the how-to guides, run in order, page by page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_pages import Block, CommandError, Stage, blocks_of

pytestmark = pytest.mark.realtime

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("tutorial/*.md"), *DOCS.glob("how-to/*.md")])


def _cases() -> Iterator[object]:
    for page in PAGES:
        name = str(page.relative_to(DOCS))
        for number, block in enumerate(blocks_of(page.read_text(encoding="utf-8"))):
            marks: list[pytest.MarkDecorator] = []
            skipped = block.said("skip")
            if skipped is not None:
                marks.append(pytest.mark.skip(reason=f"{name}: {skipped}"))
            tools = (block.said("needs") or "").split()
            if tools:
                marks.append(pytest.mark.outside(*tools))
            yield pytest.param(page, number, id=f"{name}-{number + 1}", marks=marks)


class _Pages:
    """The pages that are being run: how far each has come, and whether it failed."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._stages: dict[Path, Stage] = {}
        self._come: dict[Path, int] = {}
        self._failed: set[Path] = set()

    def run(self, page: Path, number: int) -> None:
        """Run a block, after those before it that have not run."""
        if page in self._failed:
            pytest.skip("an earlier command of this page failed")
        if page not in self._stages:
            self._stages[page] = Stage(self._factory.mktemp("page"))
        blocks = blocks_of(page.read_text(encoding="utf-8"))
        for block in blocks[self._come.get(page, 0) : number + 1]:
            if _runs_here(block):
                try:
                    self._stages[page].run(block)
                except CommandError:
                    self._failed.add(page)
                    raise
        self._come[page] = number + 1

    def close(self) -> None:
        for stage in self._stages.values():
            stage.close()


def _runs_here(block: Block) -> bool:
    tools = (block.said("needs") or "").split()
    return block.said("skip") is None and all(shutil.which(tool) for tool in tools)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Pages]:
    running = _Pages(tmp_path_factory)
    yield running
    running.close()


@pytest.mark.parametrize(("page", "number"), list(_cases()))
def test_commands_of_a_page(pages: _Pages, page: Path, number: int) -> None:
    pages.run(page, number)


def test_pages_have_commands() -> None:
    assert sum(bool(blocks_of(page.read_text(encoding="utf-8"))) for page in PAGES) >= 5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```console\n$ srpha lab falut link-down host1-a/1\n```\n", "ended with 2, not 0"),
        ("```console\n$ srpha --version\nsrpha of another name\n```\n", "does not show 'srpha of another name'"),
        ("<!-- run: exit 1 -->\n\n```console\n$ srpha --version\n```\n", "ended with 0, not 1"),
        (
            "<!-- run: file w.toml -->\n\n```toml\nwhat = 1\n```\n\n```console\n$ srpha demo --topology w.toml\n```\n",
            "2",
        ),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, text: str, complaint: str) -> None:
    stage = Stage(tmp_path)
    *before, last = blocks_of(text)
    for block in before:
        stage.run(block)
    with pytest.raises(CommandError, match=complaint):
        stage.run(last)
