"""Farms of tiny runs, made in milliseconds, for the tests of the farm."""

from contextlib import nullcontext

from tiny_runs import SMALL, Backend, Run, manifest, plan, prompts_of

from histream_core import runs
from histream_core.farm.shots import Shot
from histream_core.farm.store import Farm, open_place, read_farm, write_farm
from histream_core.runs.make import Making, make

CHUNKS = 5


def farm(folder, *names, lease=30.0):
    """A farm whose shots differ by their seeds."""
    shots = tuple(Shot(name, {"seed": number}) for number, name in enumerate(names))
    open_place(folder)
    write_farm(Farm(folder, shots, ((CHUNKS, 1000),) * len(shots), lease))
    return read_farm(folder)


def make_tiny(on_call=None):
    """A function that makes the run of a shot; `on_call` is called before each call of the network."""

    def work(shot, folder, watch=lambda journal: nullcontext(lambda progress: None)):
        about = manifest(plan(), seeds=((0, shot.options["seed"]),), **SMALL)
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
