"""Predictions: published figures that they were not far from, orders of splits, and the table of them."""

import json

import pytest
from real_sizes import hd

from histream_core.cost.cost import Cost
from histream_core.cost.pace import planned_calls
from histream_core.lab.bench.published import PUBLISHED
from histream_core.network.model import WAN_1_3B, WAN_14B
from histream_core.parallel.devices import DEVICES, LINKS, Machine, find_device, find_link
from histream_core.parallel.predict import Rate, best_rate, choose, fastest, predict
from histream_core.parallel.seconds import Share, call_seconds
from histream_core.parallel.table import lines, predictions
from histream_core.plan.presets import find_preset
from histream_core.plan.sharing import DECODE, MAX_GPUS, ONE, PIPELINE, SEQUENCE, SPLITS, Sharing


def machine(device="H100", link="nvlink"):
    return Machine(find_device(device), find_link(link))


def restyled(config=WAN_1_3B, size=(832, 480), steps=1, order="diagonal", num_frames=60):
    """A restyled video of single latent frames as StreamDiffusionV2 makes it."""
    preset = find_preset("streamdiffusionv2").with_steps(steps)
    settings = {"schedule": preset.schedule("full"), "restyle": preset.restyle, "histories": "each-step"}
    sizes = {"width": size[0], "height": size[1], "num_frames": num_frames, "preset": preset.name}
    return Cost(config, hd("full", order=order, **sizes, **settings))


def denoising(cost, device):
    seconds = sum(call_seconds(cost, call.rows, machine(device)) for call in planned_calls(cost))
    return seconds / cost.plan.num_pixel_frames


@pytest.mark.parametrize(
    "device, mode, seconds",
    [("A100", "histream", 0.48), ("A100", "histream-plus", 0.34), ("H100", "histream-plus", 0.21)],
)
def test_seconds_of_a_frame_are_near_the_published_ones(device, mode, seconds):
    """Below them by up to an eighth, as the published runs make a cache pass after the last chunk too."""
    assert 0.87 * seconds < denoising(Cost(WAN_1_3B, hd(mode)), device) <= seconds


@pytest.mark.parametrize(
    "name, config, size, device",
    [
        ("1.3B 480p H100", WAN_1_3B, (832, 480), "H100"),
        ("1.3B 512x512 H100", WAN_1_3B, (512, 512), "H100"),
        ("1.3B 480p 4090", WAN_1_3B, (832, 480), "4090"),
        ("14B 480p H100", WAN_14B, (832, 480), "H100"),
    ],
)
def test_pipelines_of_one_step_are_within_an_eighth_of_the_published_ones(name, config, size, device):
    """On 1 to 4 GPUs. The decoder of the last one is the plateau."""
    published = next(one for one in PUBLISHED if one.name == name)
    cost = restyled(config, size)
    found = [predict(cost, Sharing(PIPELINE if gpus > 1 else ONE, gpus), machine(device)) for gpus in (1, 2, 3, 4)]
    assert found == pytest.approx([rates[0] for rates in published.fps], rel=0.15)


def test_ranks_share_a_pass_by_the_largest_part():
    assert Share.of(1, 24480, 12) == Share() == Share.of(1, 100, 12)
    assert Share.of(5, 16 * 10, 12) == Share(1 / 5, 3 / 12)
    assert Share.of(8, 24480, 12) == Share(16 * 192 / 24480, 2 / 12)


def test_one_large_pass_on_several_ranks_is_faster_by_less_than_their_number():
    cost = Cost(WAN_1_3B, hd("full"))
    rows = next(planned_calls(cost)).rows
    for link in LINKS:
        alone, *others = (call_seconds(cost, rows, machine(link=link), ranks) for ranks in (1, 2, 3, 4, 6, 8, 12))
        gains = [alone / seconds for seconds in others]
        assert all(1 < gain < ranks for gain, ranks in zip(gains, (2, 3, 4, 6, 8, 12), strict=True))
    slow, fast = (call_seconds(cost, rows, machine(link=link), 4) for link in ("pcie", "nvlink"))
    assert slow > fast


def test_decode_apart_is_bound_by_the_slower_of_the_two():
    """HiStream+ at 1080p on an H100: sampling is slower; a long video comes near its rate."""
    cost = Cost(WAN_1_3B, hd("histream-plus", num_frames=120))
    sampling = 1 / denoising(cost, "H100")
    found = predict(cost, Sharing(DECODE, 1, vae_apart=True), machine())
    assert 0.98 * sampling < found <= sampling
    together = predict(cost, Sharing(ONE), machine())
    decoding = machine().device.vae * 1e12 / cost.decode_flops
    assert 1 / together == pytest.approx(1 / sampling + 1 / decoding)


def test_a_pipeline_of_several_steps_has_enough_rows_under_way():
    """Three steps on three ranks: in the order of the calls there would be two rows under way, here are four."""
    one, three = (predict(restyled(steps=3), way, machine()) for way in (Sharing(ONE), Sharing(PIPELINE, 3)))
    assert 2.5 * one < three < 3 * one


@pytest.mark.parametrize(
    "cost, gpus, taken",
    [
        (Cost(WAN_1_3B, hd("histream-plus")), 1, Sharing(ONE)),
        (Cost(WAN_1_3B, hd("histream-plus")), 2, Sharing(DECODE, 1, vae_apart=True)),
        (Cost(WAN_1_3B, hd("full")), 2, Sharing(SEQUENCE, 2)),
        (Cost(WAN_1_3B, hd("histream-plus")), 3, Sharing(SEQUENCE, 2, vae_apart=True)),
        (restyled(steps=2), 2, Sharing(PIPELINE, 2)),
        (restyled(steps=2, order="batched"), 3, Sharing(DECODE, 1, vae_apart=True)),
    ],
)
def test_auto_takes_the_fastest_split(cost, gpus, taken):
    """Decoding apart where it is a large share, sequence for large passes, pipeline for diagonal orders."""
    found = choose(cost, gpus, machine())
    assert found.sharing == taken
    assert bool(found.levels) == (taken.split == SEQUENCE)
    assert "predicted frames a second" in found.why


def test_of_nearly_equal_splits_the_simplest_is_taken():
    rates = [Rate(Sharing(ONE), 1.0), Rate(Sharing(DECODE, 1, vae_apart=True), 1.02)]
    assert fastest(rates) is rates[0]
    assert fastest([*rates, rate := Rate(Sharing(SEQUENCE, 2), 1.04)]) is rate


def test_a_split_that_is_asked_for_is_taken_or_refused():
    cost = Cost(WAN_1_3B, hd("histream-plus"))
    assert choose(cost, 2, machine(), SEQUENCE).sharing == Sharing(SEQUENCE, 2)
    assert "as asked for" in choose(cost, 2, machine(), SEQUENCE).why
    for split, gpus, words in ((PIPELINE, 2, "order diagonal"), (SEQUENCE, 13, "use 12"), ("ring", 2, "use one of")):
        with pytest.raises(ValueError, match=words):
            choose(cost, gpus, machine(), split)


def test_more_gpus_than_a_split_can_use_are_left_out_by_auto():
    cost = Cost(WAN_1_3B, hd("histream-plus", width=832, height=480))
    assert best_rate(cost, SEQUENCE, 20, machine()) == best_rate(cost, SEQUENCE, 9, machine())
    assert choose(cost, 20, machine()).sharing.gpus == 9


@pytest.mark.parametrize("gpus", [0, MAX_GPUS + 1])
def test_a_number_of_gpus_out_of_bounds_is_refused(gpus):
    with pytest.raises(ValueError, match=f"use 1 to {MAX_GPUS}, and a farm for more videos"):
        choose(Cost(WAN_1_3B, hd("full")), gpus, machine())


def test_devices_are_found_by_what_drivers_call_them():
    names = {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA GeForce RTX 4090": "4090", "NVIDIA A100-SXM4-80GB": "A100"}
    assert {name: find_device(name).name for name in names} == names
    assert {name: find_device(name).name for name in DEVICES} == {name: name for name in DEVICES}
    with pytest.raises(ValueError, match="use one of A100, H100, H200, 4090"):
        find_device("abacus")
    with pytest.raises(ValueError, match="use nvlink or pcie"):
        find_link("string")


def test_the_table_is_plain_values_and_lines_that_say_predicted():
    found = predictions(Cost(WAN_1_3B, hd("histream-plus")), 3, machine())
    assert json.loads(json.dumps(found)) == found and found["predicted"] is True
    assert [row["gpus"] for row in found["rows"]] == [1, 2, 3]
    assert [row["auto"] for row in found["rows"]] == [ONE, DECODE, SEQUENCE]
    assert found["rows"][2]["levels"] == ["high", "low"] and PIPELINE in found["rows"][2]["impossible"]
    assert found["rows"][2]["farm_fps"] == pytest.approx(3 * found["rows"][0]["splits"][ONE]["fps"])
    said = list(lines(found))
    assert said[0].startswith("predicted frames a second on H100, link nvlink")
    assert said[1].split() == ["GPUs", *SPLITS, "farm"]
    assert said[3].split()[2].endswith("*") and said[3].split()[4] == "-"
    assert any("order diagonal" in line for line in said) and said[-2].startswith("predicted, not measured")
