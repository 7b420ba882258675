"""Leases of shots: one holder at a time, whatever dies."""

import time

import pytest

from histream_core.farm import lease as module
from histream_core.farm.lease import HeldError, Lease, lease_of, this_worker


@pytest.fixture
def clock(monkeypatch):
    """The clock of this computer, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_a_shot_has_one_holder_who_is_named(tmp_path):
    with Lease(tmp_path, "one", 60), pytest.raises(HeldError, match=f'"one" is held by {this_worker()}'):
        Lease(tmp_path, "one", 60)
    with Lease(tmp_path, "one", 60) as again:
        assert again.term == 2
        assert lease_of(tmp_path, "one", 60).is_live
        Lease(tmp_path, "other", 60)


def test_a_lease_that_ended_is_taken_over_and_its_holder_notices(tmp_path, clock):
    late = Lease(tmp_path, "one", 10)
    clock[0] += 9
    late.renew()
    clock[0] += 9
    with pytest.raises(HeldError):
        Lease(tmp_path, "one", 10)
    assert not late.is_lost
    clock[0] += 2
    new = Lease(tmp_path, "one", 10)
    assert late.is_lost
    late.renew()
    assert late.is_lost
    assert not new.is_lost
    assert lease_of(tmp_path, "one", 10).term == new.term == late.term + 1


def test_a_holder_that_could_not_renew_in_time_has_lost_its_shot(tmp_path, clock):
    late = Lease(tmp_path, "one", 10)
    clock[0] += 11
    assert late.is_lost


def test_of_two_that_saw_the_same_end_one_gets_it(tmp_path, monkeypatch):
    """Seen to fail where the file of the term is not made exclusively."""
    look = module.lease_of

    def slow(*what):
        state = look(*what)
        monkeypatch.setattr(module, "lease_of", look)
        assert Lease(tmp_path, "one", 10).term == 1
        return state

    monkeypatch.setattr(module, "lease_of", slow)
    with pytest.raises(HeldError, match="which was faster"):
        Lease(tmp_path, "one", 10)


def test_terms_only_grow(tmp_path):
    """A worker that looked before the last holder let go must not find its number free."""
    for term in (1, 2, 3):
        with Lease(tmp_path, "one", 60) as lease:
            assert lease.term == term
        assert [path.name for path in (tmp_path / "one").iterdir()] == [f"00000{term}.json"]


def test_a_lease_that_nobody_has_written_yet_counts(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "000001.json").write_bytes(b"")
    assert lease_of(tmp_path, "one", 60).is_live
    assert not lease_of(tmp_path, "one", -1).is_live


def test_the_holder_tells_where_it_stands(tmp_path):
    with Lease(tmp_path, "one", 60) as lease:
        lease.about = {"chunk": 3}
        lease.renew()
        assert lease_of(tmp_path, "one", 60).about == {"chunk": 3}
