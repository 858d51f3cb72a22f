from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpha.core.seams import CheckerState, DeviceState, GroupState, PathState
from srpha.kernel.multipathd_json import (
    ListedGroup,
    ListedMap,
    ListedPath,
    PathFacts,
    parse_maps,
    parse_paths,
)
from srpha.wire.errors import DecodeError

# laid out as multipathd lays it out: blanks before the colons, one member a line
MAPS = """{
   "major_version": 0,
   "minor_version": 1,
   "maps": [{
      "name" : "mpathb",
      "uuid" : "360014050000000000000000000000002",
      "sysfs" : "dm-1",
      "failback" : "immediate",
      "queueing" : "12 chk",
      "paths" : 1,
      "write_prot" : "rw",
      "dm_st" : "active",
      "features" : "1 queue_if_no_path",
      "hwhandler" : "1 alua",
      "action" : "",
      "path_faults" : 1,
      "vend" : "LIO-ORG ",
      "prod" : "disk1           ",
      "rev" : "4.0 ",
      "switch_grp" : 0,
      "map_loads" : 2,
      "total_q_time" : 0,
      "q_timeouts" : 0,
      "path_groups": [{
         "selector" : "service-time 0",
         "pri" : 50,
         "dm_st" : "active",
         "marginal_st" : "normal",
         "group" : 1,
         "paths": [{
            "dev" : "sdb",
            "dev_t" : "8:16",
            "dm_st" : "active",
            "dev_st" : "running",
            "chk_st" : "ready",
            "checker" : "directio",
            "pri" : 50,
            "host_wwnn" : "[undef]",
            "target_wwnn" : "[undef]",
            "host_wwpn" : "[undef]",
            "target_wwpn" : "[undef]",
            "host_adapter" : "0000:01:00.0",
            "lun_hex" : "0x0000000000000000",
            "marginal_st" : "normal"
         }]
      },{
         "selector" : "service-time 0",
         "pri" : 10,
         "dm_st" : "enabled",
         "marginal_st" : "normal",
         "group" : 2,
         "paths": [{
            "dev" : "sdc",
            "dev_t" : "8:32",
            "dm_st" : "failed",
            "dev_st" : "offline",
            "chk_st" : "i/o timeout",
            "checker" : "directio",
            "pri" : 10,
            "host_wwnn" : "[undef]",
            "target_wwnn" : "[undef]",
            "host_wwpn" : "[undef]",
            "target_wwpn" : "[undef]",
            "host_adapter" : "0000:01:00.1",
            "lun_hex" : "0x0000000000000000",
            "marginal_st" : "normal"
         },{
            "dev" : "-",
            "dev_t" : "#:#",
            "dm_st" : "undef",
            "dev_st" : "unknown",
            "chk_st" : "undef",
            "checker" : "undef",
            "pri" : -1,
            "marginal_st" : "normal"
         }]
      }]
   }]
}
"""

EXPECTED = ListedMap(
    name="mpathb",
    wwid="360014050000000000000000000000002",
    dm_name="dm-1",
    vendor="LIO-ORG",
    product="disk1",
    queueing=True,
    groups=(
        ListedGroup(
            1,
            "service-time 0",
            50,
            GroupState.ACTIVE,
            (ListedPath("sdb", "8:16", PathState.ACTIVE, CheckerState.READY, DeviceState.RUNNING, 50),),
        ),
        ListedGroup(
            2,
            "service-time 0",
            10,
            GroupState.ENABLED,
            (ListedPath("sdc", "8:32", PathState.FAILED, CheckerState.TIMEOUT, DeviceState.OFFLINE, 10),),
        ),
    ),
)


def changed(path: list[str | int], value: object) -> str:
    """MAPS with one member set, or taken away when the value is ``...``."""
    document = copy.deepcopy(json.loads(MAPS))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document)


def test_golden() -> None:
    assert parse_maps(MAPS) == (EXPECTED,)


def test_no_maps_is_a_good_answer() -> None:
    assert parse_maps('{\n   "major_version": 0,\n   "minor_version": 1,\n   "maps": []\n}\n') == ()


def test_new_fields_and_missing_decoration_are_tolerated() -> None:
    assert parse_maps(changed(["maps", 0, "novelty"], {"a": [1]})) == (EXPECTED,)
    assert parse_maps(changed(["minor_version"], 7)) == (EXPECTED,)
    assert parse_maps(changed(["maps", 0, "failback"], ...)) == (EXPECTED,)
    assert parse_maps(changed(["maps", 0, "vend"], ...))[0].vendor == ""


@pytest.mark.parametrize(
    ("word", "features", "queues"),
    [
        ("on", "0", True),
        ("off", "1 queue_if_no_path", False),
        ("12 chk", "0", True),
        ("55 sec", "0", True),
        ("-", "1 queue_if_no_path", True),
        ("-", "0", False),
        ("2 pigs", "0", False),
    ],
)
def test_queueing(word: str, features: str, queues: bool) -> None:
    document = json.loads(changed(["maps", 0, "queueing"], word))
    document["maps"][0]["features"] = features
    assert parse_maps(json.dumps(document))[0].queueing is queues


def test_words_of_other_releases() -> None:
    path = ["maps", 0, "path_groups", 0, "paths", 0]

    def first(text: str) -> ListedPath:
        return parse_maps(text)[0].groups[0].paths[0]

    assert first(changed([*path, "chk_st"], "disconnected")).checker is CheckerState.FAULTY
    assert first(changed([*path, "chk_st"], "dreaming")).checker is CheckerState.UNDEF
    assert first(changed([*path, "dm_st"], "undef")).state is PathState.FAILED
    assert first(changed([*path, "dev_st"], ...)).device_state is DeviceState.RUNNING
    group = parse_maps(changed(["maps", 0, "path_groups", 0, "dm_st"], "undef"))[0].groups[0]
    assert group.state is GroupState.ENABLED
    assert parse_maps(changed(["maps", 0, "sysfs"], "undef"))[0].dm_name == ""
    assert parse_maps(changed(["maps", 0, "vend"], "##"))[0].vendor == ""


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["major_version"], 1, "version 1; srpha reads version 0"),
        (["major_version"], ..., "major_version must be a number, got nothing"),
        (["major_version"], True, "major_version must be a number, got bool"),
        (["maps"], ..., "maps must be a list, got nothing"),
        (["maps"], {}, "maps must be a list, got dict"),
        (["maps", 0], 5, "an object is expected, got int"),
        (["maps", 0, "name"], "", "name must be text"),
        (["maps", 0, "name"], "x" * 256, "name must be text of 1 to 255"),
        (["maps", 0, "uuid"], None, "map mpathb: uuid must be text"),
        (["maps", 0, "sysfs"], "../../etc", "sysfs is '../../etc', dm-<number> is expected"),
        (["maps", 0, "path_groups"], ..., "path_groups must be a list"),
        (["maps", 0, "path_groups", 0, "group"], "1", "group must be a number"),
        (["maps", 0, "path_groups", 1, "pri"], 1.5, "map mpathb group 2: pri must be a number"),
        (["maps", 0, "path_groups", 0, "paths", 0, "dev"], "../sda", "path ../sda: no name of a device"),
        (["maps", 0, "path_groups", 0, "paths", 0, "dev_t"], "8-16", "dev_t is '8-16', major:minor is expected"),
        (["maps", 0, "path_groups", 0, "paths", 0, "chk_st"], 4, "path sdb: chk_st must be text"),
        (["maps", 0, "path_groups", 0, "paths", 0, "pri"], 1 << 63, "pri must be a number"),
    ],
)
def test_what_is_wrong_is_named(path: list[str | int], value: object, complaint: str) -> None:
    with pytest.raises(DecodeError, match=complaint):
        parse_maps(changed(path, value))


@pytest.mark.parametrize("text", ["", "ok\n", "{", "[" * 100000, '{"major_version": 0, "maps": [{"name" : "a"b"}]}'])
def test_no_json(text: str) -> None:
    with pytest.raises(DecodeError):
        parse_maps(text)


def test_control_characters_of_a_device_do_no_harm() -> None:
    assert parse_maps(MAPS.replace("LIO-ORG ", "LIO\tORG "))[0].vendor == "LIO\tORG"


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["maps", "major_version", "name"]), inner),
    )
)
def test_any_json_gives_maps_or_one_complaint(document: object) -> None:
    with contextlib.suppress(DecodeError):
        assert parse_maps(json.dumps(document)) == ()


def test_paths() -> None:
    text = (
        "sdb|8:16|4:0:0:0|2\nsdc|8:32|5:0:0:18446744073709551615|0\nnvme0n1|259:0|#:#:#:#|0\n"
        "-|#:#|#:#:#:#|0\nsdd|8:48|6:0:0:1|\n"
    )
    assert parse_paths(text) == {
        "8:16": PathFacts("4:0:0:0", 2),
        "8:32": PathFacts("5:0:0:18446744073709551615", 0),
        "259:0": PathFacts("", 0),
        "8:48": PathFacts("6:0:0:1", 0),
    }
    assert parse_paths("") == {}


@pytest.mark.parametrize("text", ["sdb 8:16", "sdb|8:16|4:0:0:0|2|x", "sdb|8:16|4:0:0:0|many"])
def test_odd_paths(text: str) -> None:
    with pytest.raises(DecodeError, match="list of paths"):
        parse_paths(text)
