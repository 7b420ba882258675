"""The attack: seeded hostile inputs of every kind, each in a bounded child, and a table of what came of them.

    python tests/fuzz/attack.py [--campaign NAME] [--cases N] [--seed TEXT] [--jobs N] [--only CAMPAIGN:INDEX]

A case depends on the seed, its campaign and its index alone. The places of cases that failed are kept in a folder that
is named at the end; the exit status is then 1. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[0:1] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz import campaigns, crashes, links
from fuzz.child import BLOCKED_SECONDS, Place, faults, run
from fuzz.seeds import Seeds

CASES = {
    "checkpoints": 3800,
    "encoders": 200,
    "runs": 3700,
    "words": 2600,
    "media": 1200,
    "links": 500,
    "crashes": 0,
    "starts": 50,
}
"""The campaigns and their number of cases by hand; 0: every point."""
KINDS = ("time", "memory", "traceback", "status", "words", "escape", "outside", "wrong")
WARM = (
    "av", "numpy", "PIL.Image", "torch.utils.serialization", "histream_core.cli.verbs.videos",
    "histream_core.cli.verbs.runs",
    "histream_core.cli.verbs.costs", "histream_core.cli.verbs.files", "histream_core.cli.verbs.sheet",
    "histream_core.cli.verbs.evaluate", "histream_core.cli.verbs.drift",
    "histream_core.cli.verbs.restyle", "histream_core.lab.charts.drift",
)  # fmt: skip
"""Modules that are imported before the first fork."""


@dataclass(frozen=True)
class Result:
    """The result of a case."""

    campaign: str
    index: int
    what: str
    end: str
    faults: tuple[str, ...]


class Attack:
    """The campaigns over one set of seeds, in a folder of their own."""

    def __init__(self, folder: Path, seed: str, *, blocked_seconds: float = BLOCKED_SECONDS) -> None:
        warnings.simplefilter("ignore")
        for module in WARM:
            import_module(module)
        self.folder, self.seed, self._blocked_seconds = folder, seed, blocked_seconds
        self.seeds = Seeds(folder / "seeds")
        gc.freeze()  # so that no child goes over everything that is there
        self._warm_for = {"encoders": ("transformers.models.umt5.modeling_umt5", "sentencepiece")}

    @cached_property
    def points(self) -> list[tuple[str, int]]:
        return crashes.points_of(self.seeds)

    def size(self, campaign: str, cases: int | None) -> int:
        """The number of cases of a campaign."""
        return CASES[campaign] or len(self.points) if cases is None else cases

    def case(self, campaign: str, index: int) -> Result:
        """Run one case; its place is kept where it failed."""
        for module in self._warm_for.pop(campaign, ()):
            import_module(module)
        chance = Random(f"{self.seed}:{campaign}:{index}")
        place = Place(self.folder / "work" / f"{campaign}-{index}")
        if campaign == "crashes":
            point = self.points[index] if index < len(self.points) else chance.choice(self.points)
            case = crashes.crashes(chance, self.seeds, place, point)
        elif campaign == "starts":
            case = crashes.starts(chance, self.seeds, place)
        else:
            module = links if campaign == "links" else campaigns
            case = getattr(module, campaign)(chance, self.seeds, place)
        before = place.guarded()
        outcome = run(case.work, place, blocked_seconds=self._blocked_seconds)
        found = [
            fault for fault in faults(outcome, before, place.guarded()) if not (case.reads and "read outside" in fault)
        ]
        here = Path.cwd()
        os.chdir(place.notes)
        try:
            found += case.judge(outcome, place)
        except (OSError, RuntimeError) as error:  # a file that is gone, or words that an unspoilt run refuses
            found.append(f"wrong: {error}")
        finally:
            os.chdir(here)
        result = Result(campaign, index, case.what, outcome.end, tuple(found))
        if found:
            self._keep(place, result)
        shutil.rmtree(place.root, ignore_errors=True)
        return result

    def _keep(self, place: Place, result: Result) -> None:
        (place.notes / "case").write_text(f"{result.what!a}\n" + "".join(f"{fault!a}\n" for fault in result.faults))
        kept = self.folder / "failed" / place.root.name
        kept.parent.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        place.root.rename(kept)


def together(attack: Attack, numbers: Sequence[tuple[str, int]], jobs: int) -> Iterator[Result]:
    """The results of some cases, in any order, by so many processes."""
    if jobs == 1:
        yield from (attack.case(*number) for number in numbers)
        return
    read, write = os.pipe()
    for job in range(jobs):
        if not os.fork():
            os.close(read)
            status = 1
            try:
                for number in numbers[job::jobs]:
                    os.write(write, f"{json.dumps(vars(attack.case(*number)))[:4000]}\n".encode())
                status = 0
            finally:
                os._exit(status)
    os.close(write)
    with os.fdopen(read) as lines:
        for line in lines:
            found = json.loads(line)
            yield Result(**found | {"faults": tuple(found["faults"])})
    if any(os.wait()[1] for _ in range(jobs)):
        raise RuntimeError("a process of the attack ended before its cases did")


def report(campaign: str, results: Iterator[Result]) -> bool:
    """Print a line for each case that failed and one for the campaign; whether it held."""
    ends, kinds = Counter(), Counter()
    for result in results:
        ends[result.end] += 1
        kinds.update({fault.split(":")[0] for fault in result.faults})
        for fault in result.faults:
            sys.stdout.write(f"  {campaign}:{result.index} {fault[:300]!a} ({result.what[:200]!a})\n")
            sys.stdout.flush()
    told = [f"{ends.total()} cases", *(f"{ends[end]} {end}" for end in ("refused", "accepted", "stopped", "failed"))]
    sys.stdout.write(f"{campaign:12} {', '.join([*told, *(f'{kind} {kinds[kind]}' for kind in KINDS)])}\n")
    sys.stdout.flush()
    return not kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--campaign", choices=CASES, action="append", help="default: all of them")
    parser.add_argument("--cases", type=int, help="of each campaign (default: thousands)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first index (default: 0)")
    parser.add_argument("--seed", default="histream", help="any text; the same one makes the same cases")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", metavar="CAMPAIGN:INDEX", help="one case")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="histream-attack-"))
    attack, held = Attack(folder, args.seed), True
    if args.only:
        name, _, index = args.only.partition(":")
        held = report(name, together(attack, [(name, int(index))], 1))
    else:
        for name in args.campaign or CASES:
            numbers = [(name, index) for index in range(args.first, args.first + attack.size(name, args.cases))]
            held &= report(name, together(attack, numbers, args.jobs))
    attack.seeds.close()
    if held:
        shutil.rmtree(folder)
    else:
        shutil.rmtree(folder / "seeds")
        sys.stdout.write(f"the inputs of the cases that failed are in {folder / 'failed'}\n")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
