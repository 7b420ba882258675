"""Guidance by a negative prompt equals the reference, which knows no caches, and changes nothing where it is off.

Each docstring names the break of the engine with which the test was seen to fail.
"""

from dataclasses import replace

import pytest
import tiny
import torch
from laws.engine import FOUR, GRIDS, HISTREAM, NTK, SIZE, TWO, assert_same, noise
from laws.reference import led_away as led_away_by_token
from laws.reference import reference_histream

from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser, Text
from histream_core.network.layer import Avoided, lead_away
from histream_core.plan.guidance import NO_GUIDANCE, Guidance
from histream_core.stream.inputs import Inputs
from histream_core.stream.prompts import Prompt, led_away
from histream_core.stream.stream import Stream

CFG, NAG = Guidance(cfg=3.0), Guidance(nag=6.0)


def run(model, plan, prompts, given=None, *, kv="full", new_noise=noise):
    caches = make_caches(plan, model, CacheOptions(batch=2, kv=kv))
    denoise = Denoiser(model, guidance=plan.guidance)
    stream = Stream(plan, denoise, caches, new_noise, prompts, channels=model.in_dim, inputs=Inputs(given))
    return torch.cat(list(stream.chunks()), dim=2)


def plan_of(mode, num_frames, guidance, **options):
    return tiny.plan_of(HISTREAM, mode, num_frames=num_frames, guidance=guidance, **SIZE, **options)


@pytest.mark.parametrize(("guidance", "numbers"), [(CFG, {"cfg": 3.0}), (NAG, {"nag": 6.0})], ids=str)
def test_a_timeline_equals_the_reference(model, texts, guidance, numbers):
    """Broken by: a guided estimate that is cached under the prompt alone; a negative prompt forgotten at a cut."""
    *given, negative = texts
    prompts = [Prompt(Text(given[0])), Prompt(Text(given[1]), 2, recache=True)]
    chunks = [(given[c // 2], 3, FOUR) for c in range(4)]
    wanted = reference_histream(
        model, chunks, noise, grids=GRIDS, ntk=NTK, span=18, recache=[2], negative=negative, **numbers
    )
    found = run(model, plan_of("histream", 12, guidance), led_away(prompts, negative))
    assert_same(found, wanted)
    plain = run(model, plan_of("histream", 12, NO_GUIDANCE), prompts)
    assert (found - plain).abs().max() > 0.01


@pytest.mark.parametrize(("guidance", "numbers"), [(CFG, {"cfg": 3.0}), (NAG, {"nag": 6.0})], ids=str)
def test_a_first_frame_with_histream_plus_equals_the_reference(model, texts, guidance, numbers):
    """Broken by: a given frame that is cached under the prompt alone."""
    given = noise(99, 0, (2, 4, 1, 8, 12))
    plan = plan_of("histream-plus", 10, guidance, given_frames=1, first_frame=True)
    chunks = [(texts[0], 1, []), (texts[0], 3, FOUR), *[(texts[0], 3, TWO)] * 2]
    wanted = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, given=given, negative=texts[2], **numbers)
    assert_same(run(model, plan, led_away([Prompt(Text(texts[0]))], texts[2]), given), wanted)


@pytest.mark.parametrize("kv", ["lean", "cpu"])
def test_the_memory_tiers_give_the_same_frames(model, texts, kv):
    """Last steps are kept too. Broken by: a pair whose second cache is not told to keep a pass."""
    plan, prompts = plan_of("histream", 12, CFG, levers=("last-step",)), led_away([Prompt(Text(texts[0]))], texts[2])
    assert torch.equal(run(model, plan, prompts, kv=kv), run(model, plan, prompts))


def test_pooled_low_keys_are_those_of_each_text(model, texts):
    """Both texts are one here. Broken by: a pair at HIGH that commits without the pair at LOW that it fills."""
    levers = {"levers": ("pooled-low",)}
    same = led_away([Prompt(Text(texts[0]))], texts[0])
    plain = run(model, plan_of("histream", 12, NO_GUIDANCE, **levers), same)
    assert_same(run(model, plan_of("histream", 12, CFG, **levers), same), plain)


def test_without_guidance_a_negative_prompt_changes_no_bit(model, texts):
    """Broken by: cross-attention that is led away wherever there is a negative prompt."""
    plan = plan_of("histream", 9, NO_GUIDANCE)
    prompts = [Prompt(Text(texts[0]))]
    assert torch.equal(run(model, plan, led_away(prompts, texts[2])), run(model, plan, prompts))
    assert plan == replace(plan, guidance=Guidance(cfg=1, nag=1))


def test_what_is_led_away_is_shortened_token_by_token():
    """Broken by: a limit on all tokens together."""
    generator = torch.Generator().manual_seed(3)
    found, unwanted = (torch.randn(2, 7, 12, generator=generator) for _ in range(2))
    unwanted[:, ::2] *= 0.01
    unwanted[0, 0], unwanted[1, 1] = found[0, 0], 11 / 10 * found[1, 1]
    numbers = Avoided((found, found), 11.0, 2.5, 0.25)
    torch.testing.assert_close(lead_away(found, unwanted, numbers), led_away_by_token(found, unwanted, 11.0))
    assert not lead_away(torch.zeros(1, 1, 12), torch.zeros(1, 1, 12), numbers).any()


def test_rows_of_one_call_have_their_negative_prompts(model, texts):
    """Broken by: rows without the negative prompts of their texts."""
    schedule = tuple({"histories": "each-step", "order": order} for order in ("diagonal", "batched"))
    prompts = led_away([Prompt(Text(texts[0])), Prompt(Text(texts[1]), 3)], texts[2])
    one, other = (run(model, plan_of("full", 18, NAG, **how), prompts) for how in schedule)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert (one - run(model, plan_of("full", 18, NO_GUIDANCE, **schedule[0]), prompts)).abs().max() > 0.01


def test_a_diagonal_order_gives_the_same_frames(model, texts):
    """In the tier that stores what is kept alone. Broken by: a pair whose second cache is not told to keep a step."""
    prompts = led_away([Prompt(Text(texts[0]))], texts[2])
    in_turn, diagonal = (
        run(model, plan_of("full", 15, CFG, histories="each-step", **order), prompts, kv=kv)
        for order, kv in (({}, "full"), ({"order": "diagonal"}, "lean"))
    )
    assert torch.equal(in_turn, diagonal)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Guidance(cfg=0), "CFG 0 cannot be: use 1 for none, 3 to 6"),
        (lambda: Guidance(cfg=float("nan")), "CFG nan cannot be"),
        (lambda: Guidance(nag=0.5), "NAG 0.5 cannot be: use 1 for none, 5 to 11"),
        (lambda: Guidance(nag=5, nag_limit=0), "limit 0 and share 0.25 cannot be: use 2.5"),
        (lambda: Guidance(cfg=3, nag=5), "CFG 3 and NAG 5 both lead away .*: set one of them to 1"),
        (
            lambda: plan_of("full", 9, CFG, histories="each-step", order="batched"),
            "batched computes rows of one prompt together, and CFG 3 .*: take the order diagonal",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_guidance_without_a_negative_prompt_is_refused_before_the_first_step(model, texts):
    with pytest.raises(ValueError, match="CFG 3 leads away from a negative prompt, and there is none: give one"):
        run(model, plan_of("histream", 9, CFG), [Prompt(Text(texts[0]))])
