"""Ways that run on a card: only settings that work, none that does not fit, the cheapest first."""

import json
import re
from dataclasses import replace

import pytest
from real_sizes import hd
from slow import slow

from histream_core.cli import main
from histream_core.cost.cost import GB, RESERVE, Cost
from histream_core.cost.fitting import does_not_fit
from histream_core.cost.memory_plan import CARDS, choices, describe, running_tiers, verdict, ways
from histream_core.network.model import WAN_1_3B, WAN_14B
from histream_core.plan.storage import EXACT

COST = Cost(WAN_1_3B, hd("histream", num_frames=60))
EVERYTHING = {"offload": True, "apart": True, "files": ("light wan", "taehv")}


@pytest.mark.parametrize(("config", "size"), [
    (WAN_1_3B, (1920, 1088)), (WAN_14B, (832, 480)), slow(WAN_1_3B, (832, 480)), slow(WAN_14B, (1920, 1088)),
], ids=["1.3b", "14b", "1.3b small", "14b large"])  # fmt: skip
def test_what_is_proposed_fits_by_the_figures_that_a_run_is_refused_by(config, size):
    """Seen to fail without the driver's part."""
    cost = Cost(config, hd("histream", num_frames=60, width=size[0], height=size[1]))
    found, proposed = ways(cost, **EVERYTHING), 0
    for card in CARDS:
        for way in choices(found, card):
            proposed += 1
            if way.apart:
                assert max(way.cost.sampling_bytes, way.cost.decoding_bytes) + RESERVE <= card * GB
            else:
                assert does_not_fit(way.cost, card) == ()
    assert proposed >= 2


@pytest.mark.slow
def test_the_first_one_is_the_cheapest_that_fits():
    """Ways with the same frames come before others; then what moves least. Seen to fail in the order of memory."""
    found = ways(COST, **EVERYTHING)
    for card in CARDS:
        first, *others = choices(found, card)
        fitting = [way for way in found if way.bytes_needed <= card * GB]
        assert first.same_frames == any(way.same_frames for way in fitting)
        alike = [way for way in fitting if way.same_frames == first.same_frames]
        assert first.moved_bytes == min(way.moved_bytes for way in alike)
        assert all((way.moved_bytes, way.apart) < (first.moved_bytes, first.apart) for way in others)


def test_where_everything_fits_the_defaults_cost_nothing():
    [only] = choices(ways(COST, **EVERYTHING), 96)
    assert (only.settings, only.prices, only.cost) == ("", "nothing", COST)
    assert only.bytes_needed == COST.peak_bytes + RESERVE


def test_only_what_really_runs_is_proposed():
    """Seen to fail with all of TIERS and DECODERS."""
    assert running_tiers(COST) == ("full", "lean", "cpu", "fp8")
    assert running_tiers(COST, "mps") == ("full", "lean", "cpu")
    assert running_tiers(replace(COST, unified=True)) == ("full", "lean", "fp8")
    assert {way.decoder for way in ways(COST)} == {"wan", "wan, 2 strips", "wan, 4 strips"}
    assert {way.decoder for way in ways(COST, files=["taehv"])} == {"wan", "wan, 2 strips", "wan, 4 strips", "taehv"}
    chosen = ways(replace(COST, taehv=True), files=["taehv", "light wan"])
    assert {way.decoder for way in chosen} == {"wan", "wan, 2 strips", "wan, 4 strips"}
    assert all(way.cost.taehv for way in chosen)
    small = Cost(WAN_1_3B, hd("histream", width=256, height=256))
    assert {way.decoder for way in ways(small)} == {"wan", "wan, 2 strips"}
    assert not any(way.apart or way.cost.offloaded for way in ways(COST))


def test_the_same_frames_are_said_only_of_settings_that_give_them():
    for way in ways(COST, **EVERYTHING):
        exact = way.cost.kv in EXACT and way.cost.vae_strips == 1 and way.cost.taehv == COST.taehv
        assert way.same_frames == (exact and way.decoder != "light wan")
        assert ("other frames" in way.prices or "less detail" in way.prices) == (not way.same_frames)


def test_prices_are_in_gigabytes_of_what_moves():
    by = {(way.cost.kv, way.cost.offloaded): way for way in ways(COST, offload=True) if way.decoder == "wan"}
    assert f"{COST.weight_bytes / GB:.1f} GB pass to the GPU" in by["full", True].prices
    past = replace(COST, kv="cpu").kv_main_bytes
    assert by["cpu", False].prices.startswith(f"{past / GB:.1f} GB of main memory")
    assert by["cpu", True].moved_bytes == past + COST.weight_bytes


def test_weights_that_are_stored_smaller_count_as_they_are():
    assert replace(COST, stored_bytes=GB).peak_bytes == COST.peak_bytes - COST.weight_bytes + GB


def test_the_lines_add_up_and_name_every_card():
    lines = list(describe(COST, ways(COST, **EVERYTHING)))
    [together] = [line for line in lines if "together" in line]
    assert f"{(COST.peak_bytes + RESERVE) / GB:.1f} GB" in together
    assert [int(found[1]) for line in lines if (found := re.match(r"  (\d+) GB: ", line))] == list(CARDS)


def test_where_nothing_fits_the_least_is_named():
    cost = Cost(WAN_14B, hd("full", num_frames=60))
    assert any("24 GB: nothing at this size, the least is" in line for line in describe(cost, ways(cost)))


def test_the_command_line_says_what_runs_on_which_card(capsys):
    assert main(["plan", "--size", "832x480", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["cards"]
    assert list(cards) == [str(card) for card in CARDS]
    assert cards["24"][0] == {"settings": "", "bytes": cards["24"][0]["bytes"], "costs": "nothing"}
    assert main(["plan", "--size", "832x480"]) == 0
    assert "what runs on a card of" in capsys.readouterr().out


def test_the_verdict_is_one_line_that_says_what_to_change():
    """Seen to fail with one that takes the settings that fit for those that are set."""
    found = ways(COST, **EVERYTHING)
    needed = (COST.peak_bytes + RESERVE) / GB
    assert verdict(COST, found, 1000) == f"Fits as it is set: {needed:.1f} GB of 1000 GB"
    waiting = verdict(COST, ways(COST, offload=True), needed - 0.5)
    assert waiting.startswith("Fits as it is set: ")
    assert verdict(COST, found, needed - 0.5).startswith("Fits as it is set, decoding afterwards: ")
    assert "costs: weights wait in main memory" in waiting
    bare = ways(COST)
    changed = verdict(COST, bare, needed - 0.5)
    assert changed.startswith(f"Does not fit as it is set: {needed:.1f} GB, and {needed - 0.5:g} GB are here. ")
    assert f"It fits with {choices(bare, needed - 0.5)[0].settings}: " in changed
    assert verdict(COST, bare, 1).endswith(" GB, and 1 GB are here. Choose a smaller size")
    strange = replace(COST, vae_strips=3)
    assert verdict(strange, ways(strange), 1000).startswith("Fits as it is set: ")
    assert "\n" not in waiting + changed


def test_weighing_every_way_walks_through_the_chunks_of_a_plan_once(monkeypatch):
    """All ways share one plan: 100,001 frames took 100 seconds when each of a hundred walked through it."""
    plan, asked = hd("histream", num_frames=3_000), []
    chunk_at = type(plan).chunk_at
    monkeypatch.setattr(type(plan), "chunk_at", lambda plan, index: asked.append(index) or chunk_at(plan, index))
    found = ways(Cost(WAN_1_3B, plan), **EVERYTHING)
    assert len(found) > 50
    assert all(way.cost.peak_bytes > 0 for way in found)
    assert plan.num_chunks <= len(asked) <= 4 * plan.num_chunks
