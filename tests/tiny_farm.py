"""Farms of tiny runs, made in milliseconds, for the tests of the farm."""

from contextlib import nullcontext
from dataclasses import replace

from tiny_runs import SMALL, Backend, Run, manifest, plan, prompts_of, section

from histream_core import runs
from histream_core.farm.shots import Shot
from histream_core.farm.store import Farm, open_place, read_farm, write_farm
from histream_core.plan.chunks import with_anchors
from histream_core.plan.parts import Parts
from histream_core.runs.make import Making, make

CHUNKS = 5


def farm(folder, *names, lease=30.0):
    """A farm whose shots differ by their seeds."""
    shots = tuple(Shot(name, {"seed": number}) for number, name in enumerate(names))
    open_place(folder)
    write_farm(Farm(folder, shots, ((CHUNKS, 1000),) * len(shots), lease))
    return read_farm(folder)


SCENES = (6, 12)
"""The latent frames at which the second and the third scene of a shot of seven chunks begin, with chunks 2 and 4."""

PARTS = Parts((range(2), range(2, 4), range(4, 7)))


def scenes():
    """A run of three scenes; within the second one the prompt changes, and sees what came before."""
    a_plan = with_anchors(plan(20), (), SCENES)
    prompts = [section(), section("a dog", 2), section("a cat", 3, recache=True), section("a dog", 4)]
    return manifest(a_plan, sections=prompts, **SMALL)


def farm_of_scenes(folder, *names, lease=30.0):
    """A farm whose shots have three scenes each."""
    a_farm = farm(folder, *names, lease=lease)
    shots = tuple(replace(shot, options={**shot.options, "scenes": True}) for shot in a_farm.shots)
    work = ((PARTS.chunks[-1].stop, 1000),) * len(shots)
    write_farm(replace(a_farm, shots=shots, work=work, parts=dict.fromkeys(names, PARTS)))
    return read_farm(folder)


def make_tiny(on_call=None):
    """A function that makes the run of a shot; `on_call` is called before each call of the network."""

    def work(shot, folder, watch=lambda journal: nullcontext(lambda progress: None), part=None):
        about = scenes() if "scenes" in shot.options else manifest(plan(), **SMALL)
        about = replace(about, seeds=(runs.Seed(0, shot.options["seed"]),), part=part)
        with runs.start_or_resume(folder, about) as journal, watch(journal) as report:
            prompts = prompts_of(journal.manifest)
            make(Backend(Run(journal, on_call=on_call)), journal, Making(report=report), prompts=prompts)

    return work


def chunks_made(a_farm, name):
    """The chunks that were denoised, in their order, by each attempt."""
    attempts = {}
    for event in a_farm.events(name):
        if event["event"] == "begun":
            attempts[event["term"]] = []
        if event["event"] == "chunk":
            attempts[event["term"]].append(event["chunk"])
    return list(attempts.values())
