"""Files of a farm that somebody else has changed: refused in a sentence, or read as what they say."""

from contextlib import suppress
from random import Random

import pytest
from fuzz.mutate import spoil_bytes, spoil_json
from tiny_farm import farm

from histream_core.farm.lease import Lease
from histream_core.farm.shots import read_shots
from histream_core.farm.status import look
from histream_core.farm.store import read_farm

FILES = ("farm.json", "logs/one.jsonl", "leases/one/000001.json")


@pytest.mark.parametrize("name", FILES)
def test_a_spoilt_farm_is_refused_or_read(tmp_path, name):
    a_farm = farm(tmp_path, "one", "two")
    a_farm.note("one", "begun", term=1, by="me", kept=0)
    a_farm.note("one", "chunk", term=1, chunk=0, seconds=2.5)
    lease = Lease(a_farm.leases, "one", 60)
    lease.about = {"chunk": 1, "chunks": 5, "left": 8.0}
    lease.renew()
    chance, path = Random(name), tmp_path / name
    whole = path.read_bytes()
    for number in range(60):
        spoil = spoil_bytes if number % 3 else spoil_json
        path.write_bytes(spoil(chance, whole.splitlines()[-1] if "logs" in name else whole))
        with suppress(ValueError, OSError):
            assert "\x1b" not in look(read_farm(tmp_path)).table()


def test_a_spoilt_list_is_read_or_refused_by_no_other_error(tmp_path):
    chance, path, read = Random(0), tmp_path / "shots.jsonl", []
    for number in range(60):
        spoil = spoil_bytes if number % 2 else spoil_json
        path.write_bytes(spoil(chance, b'{"name": "one", "prompt": "a cat", "size": [64, 32], "seed": 1}'))
        with suppress(ValueError, OSError):
            read += read_shots(path)
    assert 0 < len(read) < 60
