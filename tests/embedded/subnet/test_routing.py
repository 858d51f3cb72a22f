"""Forwarding tables as a pure function."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.subnet.routing import Destination, forwarding_tables, hop_counts
from srpha.wire.smp import NO_PORT

SQUARE = {1: {1: 2, 2: 3}, 2: {1: 1, 2: 4}, 3: {1: 1, 2: 4}, 4: {1: 2, 2: 3}}
"""Four switches in a ring: two equal ways across."""


def test_literal() -> None:
    tables = forwarding_tables(
        SQUARE, [Destination(1, 1, 9), Destination(2, 4, 8), Destination(3, 4, 7), Destination(70, 2, 0)]
    )
    assert {guid: (table[1], table[2], table[3], table[70]) for guid, table in tables.items()} == {
        1: (9, 1, 2, 1),
        2: (1, 2, 2, 0),
        3: (1, 2, 2, 1),
        4: (1, 8, 7, 1),
    }
    assert {len(table) for table in tables.values()} == {128}
    assert tables[1][0] == NO_PORT


def test_nothing() -> None:
    assert forwarding_tables({}, []) == {}
    assert forwarding_tables({5: {}}, []) == {5: bytes([NO_PORT]) * 64}
    assert forwarding_tables({5: {}}, [Destination(1, 6, 1)]) == {5: bytes([NO_PORT]) * 64}


def test_islands() -> None:
    tables = forwarding_tables({1: {}, 2: {}}, [Destination(1, 1, 1), Destination(2, 2, 1)])
    assert tables[1][2] == tables[2][1] == NO_PORT


def test_hop_counts() -> None:
    assert hop_counts(SQUARE, 1) == {1: 0, 2: 1, 3: 1, 4: 2}


@st.composite
def meshes(draw: st.DrawFn) -> tuple[dict[int, dict[int, int]], list[Destination]]:
    count = draw(st.integers(1, 7))
    links: dict[int, dict[int, int]] = {guid: {} for guid in range(1, count + 1)}
    pairs = list(itertools.combinations(links, 2))
    for a, b in draw(st.lists(st.sampled_from(pairs), max_size=15)) if pairs else []:
        links[a][len(links[a]) + 1] = b
        links[b][len(links[b]) + 1] = a
    homes = draw(st.lists(st.sampled_from(sorted(links)), max_size=20))
    return links, [Destination(lid, home, 100 + lid) for lid, home in enumerate(homes, 1)]


@given(meshes())
def test_every_route_is_shortest_and_loop_free(mesh: tuple[dict[int, dict[int, int]], list[Destination]]) -> None:
    links, destinations = mesh
    tables = forwarding_tables(links, destinations)
    shuffled = {guid: dict(reversed(ports.items())) for guid, ports in reversed(links.items())}
    assert forwarding_tables(shuffled, reversed(destinations)) == tables
    for target in destinations:
        hops = hop_counts(links, target.switch)
        for start in links:
            at, steps = start, 0
            while at != target.switch and tables[at][target.lid] != NO_PORT:
                at = links[at][tables[at][target.lid]]
                steps += 1
            assert (at == target.switch) == (start in hops)
            assert start not in hops or steps == hops[start]
