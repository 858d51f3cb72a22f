"""The harness in conftest.py does what it says: each case runs a small test session in a process of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import pytest

CONFTEST = pathlib.Path(__file__).with_name("conftest.py")
INI = """
[pytest]
addopts = --strict-markers --import-mode=importlib -p no:cacheprovider
filterwarnings = error
markers =
    outside(tool): needs an outside tool
    realtime: real clock
    virtual_limit(seconds): more virtual time
"""


def session(folder: pathlib.Path, body: str, *options: str) -> tuple[int, str]:
    """Run ``body`` as a test file with this project's conftest; exit status and output."""
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")
    (folder / "test_it.py").write_text("import asyncio, pytest\n" + textwrap.dedent(body), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


class TestCoroutineTests:
    async def test_this_very_test_runs_in_virtual_time(self) -> None:
        import asyncio

        from srpha.embedded.virtual_time import VirtualTimeLoop

        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        await asyncio.sleep(3000)

    def test_all_kinds(self, tmp_path: pathlib.Path) -> None:
        status, output = session(
            tmp_path,
            """
            from hypothesis import given, strategies as st
            from srpha.embedded.virtual_time import VirtualTimeLoop

            def virtual():
                return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)

            @pytest.fixture
            def answer():
                return 42

            async def test_fixtures_arrive(answer, tmp_path):
                assert answer == 42 and virtual()

            @pytest.mark.realtime
            async def test_real():
                assert not virtual()

            @pytest.mark.virtual_limit(10_000)
            async def test_long():
                await asyncio.sleep(9_999)

            @given(st.integers(0, 5))
            async def test_examples(number):
                assert virtual() and asyncio.get_running_loop().time() == 0
                await asyncio.sleep(number)

            class TestInClass:
                async def test_method(self, answer):
                    assert answer == 42 and virtual()
            """,
        )
        assert "5 passed" in output
        assert status == 0

    def test_a_coroutine_test_can_fail(self, tmp_path: pathlib.Path) -> None:
        status, output = session(
            tmp_path,
            """
            async def test_assertion():
                await asyncio.sleep(1)
                assert 1 == 2

            async def test_stray():
                asyncio.get_running_loop().call_soon(lambda: 1 // 0)
                await asyncio.sleep(1)

            async def test_overrun():
                await asyncio.sleep(1e5)
            """,
        )
        assert "3 failed" in output
        assert status == 1


class TestSeeds:
    BODY = """
        def test_seeded(seed):
            assert seed != 1

        @pytest.mark.parametrize("word", ["a b"])
        async def test_both(word, seed):
            assert seed != 1
        """

    def test_a_failure_prints_its_replay(self, tmp_path: pathlib.Path) -> None:
        status, output = session(tmp_path, self.BODY, "--seeds", "4")
        assert status == 1
        assert "2 failed, 6 passed" in output
        assert "replay: .venv/bin/pytest 'test_it.py::test_seeded[1]' --seed 1" in output

    @pytest.mark.parametrize(
        ("node", "seed", "outcome"),
        [("test_it.py::test_seeded[1]", "1", "1 failed"), ("test_it.py::test_seeded[17]", "17", "1 passed")],
    )
    def test_the_replay_runs_just_that(self, tmp_path: pathlib.Path, node: str, seed: str, outcome: str) -> None:
        _, output = session(tmp_path, self.BODY, node, "--seed", seed)
        assert outcome in output.splitlines()[-1]

    def test_the_number_of_seeds_is_checked(self, tmp_path: pathlib.Path) -> None:
        status, output = session(tmp_path, self.BODY, "--seeds", "0")
        assert status == 4
        assert "at least 1" in output


class TestOutsideTools:
    BODY = """
        @pytest.mark.outside("sh")
        def test_present(): pass

        @pytest.mark.outside("sh", "srpha-no-such-tool")
        def test_missing(): raise AssertionError("must not run")

        @pytest.mark.outside("srpha-no-such-tool")
        async def test_missing_too(): raise AssertionError("must not run")
        """

    @pytest.mark.parametrize("options", [(), ("-n", "2")])
    def test_missing_ones_skip_and_are_told(self, tmp_path: pathlib.Path, options: tuple[str, ...]) -> None:
        status, output = session(tmp_path, self.BODY, *options)
        assert status == 0
        assert "outside tools missing: srpha-no-such-tool (2 skipped)" in output
        assert "1 passed, 2 skipped" in output.splitlines()[-1]

    def test_all_present(self, tmp_path: pathlib.Path) -> None:
        status, output = session(tmp_path, self.BODY, "-k", "present")
        assert status == 0
        assert "outside tools: all present (sh)" in output

    def test_nothing_is_said_when_nothing_asks(self, tmp_path: pathlib.Path) -> None:
        _, output = session(tmp_path, "def test_plain(): pass")
        assert "outside tools" not in output
