import pytest

from histream_core.plan.presets import MODES, PRESETS, find_preset
from histream_core.plan.schedule import Scale, make_steps, parse_schedule, warp


@pytest.mark.parametrize(
    ("shift", "sigmas"),
    [(5, [1, 0.9375, 0.83333333, 0.625]), (7, [1, 0.95454545, 0.875, 0.7]), (1, [1, 0.75, 0.5, 0.25])],
)
def test_the_time_shift_gives_the_published_sigmas(shift, sigmas):
    assert [warp(t / 1000, shift) for t in (1000, 750, 500, 250)] == pytest.approx(sigmas, abs=1e-8)


def test_the_shift_belongs_to_the_resolution():
    low, high = make_steps((1000, 500), 1, shift_low=5, shift_high=7)
    assert (low.scale, high.scale) == (Scale.LOW, Scale.HIGH)
    assert high.sigma == pytest.approx(0.875)
    assert low.timestep == 1000


def test_a_custom_table_is_read_chunk_by_chunk():
    first, second, later = parse_schedule("1000L 750L 500H 250H | 1000L, 500H | 1000h")
    assert [step.scale.value for step in first] == ["low", "low", "high", "high"]
    assert [step.timestep for step in second] == [1000, 500]
    assert [step.scale for step in later] == [Scale.HIGH]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("", "is not a list of steps"),
        ("1000", "is not a list of steps"),
        ("1000L 500X", "is not a list of steps"),
        ("1000L", "last step of a chunk must be at HIGH"),
        ("1000H 500L", "LOW step cannot follow a HIGH step"),
        ("500L 1000H", "must fall from step to step"),
        ("2000H", "not in"),
        ("1000L 0H", "not in"),
    ],
)
def test_a_table_that_cannot_work_is_refused_in_one_sentence(table, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        parse_schedule(table)
    assert "\n" not in str(refusal.value)


def test_a_timestep_is_refused_by_the_number_that_was_written():
    """And not by what the time shift makes of it. Seen to fail where sigmas alone are checked."""
    with pytest.raises(ValueError, match=r"timestep 2000 is not in \(0, 1000\]: use 1000"):
        parse_schedule("2000L 500H", shift_low=5)


def test_a_shift_that_turns_the_order_around_is_refused():
    with pytest.raises(ValueError, match="must fall"):
        make_steps((600, 550), 1, shift_low=1, shift_high=7)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", MODES)
def test_every_preset_has_a_schedule_for_every_mode(preset, mode):
    for steps in find_preset(preset).schedule(mode):
        assert steps[-1].scale is Scale.HIGH


def test_histream_plus_halves_the_steps_after_the_first_chunk():
    first, later = find_preset("histream").schedule("histream-plus")
    assert [step.scale.value for step in first] == ["low", "low", "high", "high"]
    assert [step.scale.value for step in later] == ["low", "high"]


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="self-forcing"):
        find_preset("self_forcing")
