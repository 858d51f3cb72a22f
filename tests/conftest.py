"""The test harness: coroutine tests in virtual time, seeds, and outside tools that skip visibly.

* An ``async def`` test runs in virtual time (:func:`srpha.embedded.virtual_time.run_virtual`); marked ``realtime`` it
  runs on an ordinary loop; ``virtual_limit(seconds)`` grants it more virtual time than the default.
* A test that asks for ``seed`` runs once per seed: ``--seeds N`` gives 0..N-1, ``--seed S`` exactly one. A failure
  prints the command that repeats it.
* ``outside("tool", ...)`` names programs that this project did not write. Without them the test skips, and the closing
  summary says which were missing and how many tests each one cost.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import pathlib
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from srpha.embedded.virtual_time import DEFAULT_LIMIT, run_virtual

settings.register_profile("srpha", derandomize=True, deadline=None, database=None)
settings.load_profile("srpha")

DEFAULT_SEEDS = 3
CAMPAIGNS = frozenset({"tests/lab/test_scenario.py", "tests/lab/test_faults.py"})
LABS = "tests/labs"
OUTSIDE_PROPERTY = "outside tool"
MISSING_PROPERTY = "outside tool missing"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("srpha")
    group.addoption("--seeds", type=int, default=DEFAULT_SEEDS, metavar="N", help="run seeded tests with seeds 0..N-1")
    group.addoption("--seed", type=int, default=None, metavar="S", help="run seeded tests with this seed only")


def pytest_configure(config: pytest.Config) -> None:
    # A run in the background of a shell ignores SIGINT and would hand that on to every program that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--seeds") < 1:
        raise pytest.UsageError("--seeds must be at least 1")
    # Test modules of different folders may share a name (import mode importlib); helper modules beside them are found
    # through the search path and have names of their own.
    here = pathlib.Path(__file__).parent
    sys.path[:0] = sorted({str(module.parent) for module in here.rglob("*.py")} - set(sys.path))
    # Debian keeps opensm and saquery where an ordinary user's PATH does not look.
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(path + [place for place in ("/usr/sbin", "/sbin") if place not in path])


# --- seeds ---


class Spread(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands tests to workers file by file, because modules share fixtures and machine-wide names.

    The seed campaigns are spread test by test; the labs with real programs stay together on one worker, since those
    programs share lock files and socket names. (pytest 9.2 ignores the groups that xdist 3.8 marks.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in CAMPAIGNS:
            return nodeid
        return LABS if path.startswith(LABS) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Spread:
    """Called by xdist when several workers run."""
    return Spread(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if any("seed" in (names.replace(",", " ").split() if isinstance(names, str) else names) for names in given):
        return  # the test brings its own seeds
    only: int | None = metafunc.config.getoption("--seed")
    seeds = range(metafunc.config.getoption("--seeds")) if only is None else [only]
    metafunc.parametrize("seed", seeds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seed = getattr(item, "callspec", None) and item.callspec.params.get("seed")
    if report.failed and isinstance(seed, int):
        report.sections.append(("replay", f"replay: .venv/bin/pytest {shlex.quote(item.nodeid)} --seed {seed}"))
    return report


# --- coroutine tests ---


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    inner = getattr(getattr(test, "hypothesis", None), "inner_test", None)
    if inspect.iscoroutinefunction(inner):
        # Hypothesis calls the inner function once per example; each example gets a run of its own.
        test.hypothesis.inner_test = _synchronous(inner, pyfuncitem)
        return None
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    _synchronous(test, pyfuncitem)(**arguments)
    return True


def _synchronous(test: Callable[..., Coroutine[Any, Any, None]], item: pytest.Function) -> Callable[..., None]:
    limit = item.get_closest_marker("virtual_limit")
    seconds = float(limit.args[0]) if limit else DEFAULT_LIMIT

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        if item.get_closest_marker("realtime"):
            asyncio.run(test(*args, **kwargs))
        else:
            run_virtual(test(*args, **kwargs), limit=seconds)

    return run


# --- outside tools ---


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    tools = list(dict.fromkeys(str(tool) for mark in item.iter_markers("outside") for tool in mark.args))
    missing = [tool for tool in tools if shutil.which(tool) is None]
    item.user_properties += [(OUTSIDE_PROPERTY, tool) for tool in tools]
    item.user_properties += [(MISSING_PROPERTY, tool) for tool in missing]
    if missing:
        pytest.skip(f"outside tool missing: {', '.join(missing)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    asked: dict[str, set[str]] = {OUTSIDE_PROPERTY: set(), MISSING_PROPERTY: set()}
    skipped: dict[str, set[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, tool in getattr(report, "user_properties", ()):
                if name in asked:
                    asked[name].add(tool)
                if name == MISSING_PROPERTY:
                    skipped.setdefault(tool, set()).add(report.nodeid)
    if not asked[OUTSIDE_PROPERTY]:
        return
    terminalreporter.section("outside tools")
    if skipped:
        lost = ", ".join(f"{tool} ({len(skipped[tool])} skipped)" for tool in sorted(skipped))
        terminalreporter.write_line(f"outside tools missing: {lost}", yellow=True)
    else:
        terminalreporter.write_line(f"outside tools: all present ({', '.join(sorted(asked[OUTSIDE_PROPERTY]))})")
