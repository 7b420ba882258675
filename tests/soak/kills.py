# ruff: noqa: T201
"""Kill ranks of a video that several processes make, at random moments, and compare with the video of one process.

    python tests/soak/kills.py [--kills 20] [--stops 4] [--drivers 2] [--ranks 3] [--seed 0] [--json FILE]

Each case is a kept run of tiny weights in a process of its own, by turns with the splits sequence and pipeline. At a
random request within a random chunk a random rank gets SIGKILL (kills) or SIGSTOP (stops), or the first rank does, in
whose process the command runs (drivers; the run is then resumed). A killed rank must be missed within two seconds, a
hung one within ten after HANG_SECONDS; the run must go on to the bytes of one process, and two minutes after its end no
process of it may be there, Ray's neither. Exit status 1 where it is otherwise. Linux only: it reads /proc.
"""

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_cli import render_words, write_weights  # noqa: E402

from histream_core.cli import main as histream  # noqa: E402
from histream_core.network.model import WanConfig  # noqa: E402
from histream_core.parallel import gang, workers  # noqa: E402
from histream_core.plan import sharing  # noqa: E402
from histream_core.runs.store.journal import Journal  # noqa: E402

MARK = "HISTREAM_KILLS_CASE"
"""A variable in the environment of all processes of a case, by which they are found."""
SEEN_WITHIN, HANG_SEEN_WITHIN, GONE_WITHIN = 2.0, workers.HANG_SECONDS + 10.0, 120.0
"""Seconds until a killed rank is missed, until one that hangs is, and until no process of an ended run is there."""
SIZE = ["--size", "256x128", "--frames", "69"]
SPLITS = {
    "sequence": ["--mode", "histream"],
    "pipeline": ["--mode", "full", "--histories", "each-step", "--order", "diagonal"],
}
"""Options of the videos that each split makes, of six chunks."""
NUM_CHUNKS, REQUESTS = 6, 12
"""Requests to the ranks within which a blow falls after a chunk is written, or with the first one behind the next."""


class Blow:
    """A signal for a rank at a random request to the ranks within a random chunk."""

    def __init__(self, case, times):
        self.case, self.times, self.written, self.asked = case, times, 0, 0
        write, tell = Journal.write, gang.Gang.tell

        def counting(journal, chunk, *rest):
            write(journal, chunk, *rest)
            self.written, self.asked = chunk + 1, 0

        def telling(ranks, verb, **values):
            tell(ranks, verb, **values)
            self.asked += 1
            if "blow" not in times and (self.written, self.asked) >= (case["chunk"], case["request"]):
                self.fall(ranks.pids)

        Journal.write, gang.Gang.tell = counting, telling

    def fall(self, pids):
        """The first rank is this process."""
        rank = self.case["rank"]
        self.times |= {"blow": time.monotonic(), "pids": pids, "written": self.written}
        self.case["times"].write_text(json.dumps(self.times))
        os.kill(pids[rank - 1] if rank else os.getpid(), self.case["signal"])


class Seen(logging.Handler):
    """Notes when a run says that it goes on after a loss."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def emit(self, record):
        if "started again" in record.getMessage():
            self.times.setdefault("seen", time.monotonic())
            self.times.setdefault("said", record.getMessage())


def work(told):
    """Make the video of a case in this process, with an ear on losses, and release its ranks."""
    case = json.loads(told)
    case["times"], times = Path(case["times"]), {}
    sharing.LEAST_TOKENS = 16
    torch.set_num_threads(1)
    if case.get("signal"):
        Blow(case, times)
    logging.getLogger("histream_core.runs.make").addHandler(Seen(times))
    status = histream(case["words"])
    gang_now = workers.kept_gang()
    times["pids"] = [*times.get("pids", []), *(gang_now.pids if gang_now else [])]
    times["released"] = time.monotonic()
    workers.release_gang()
    case["times"].write_text(json.dumps(times))
    return status


def run(case, words, place):
    """Run a case in a process of its own; its times, the status, and the seconds until all its processes were gone."""
    told = {**case, "words": words, "times": str(place / f"{case['name']}.json")}
    # Ray's folders go with ours; a thread each, as sums over several differ in their last bits.
    around = os.environ | {MARK: case["name"], "RAY_TMPDIR": str(place / "ray"), "OMP_NUM_THREADS": "1"}
    said = place / f"{case['name']}.txt"
    with said.open("w") as errors:
        status = subprocess.call(
            [sys.executable, __file__, "--work", json.dumps(told)], env=around, stdout=errors, stderr=errors
        )
    ended = time.monotonic()
    while (left := processes_of(case["name"])) and time.monotonic() < ended + GONE_WITHIN:
        time.sleep(0.1)
    times = Path(told["times"])
    found = json.loads(times.read_text()) if times.exists() else {}
    gone, said = time.monotonic() - ended, said.read_text(errors="replace")
    return {**found, "status": status, "left": left, "gone": gone, "said": said[-2000:]}


def processes_of(name):
    """The processes of a case that are there, zombies left out, with their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={name}\0".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " ")[:120])
        except OSError:  # it has just ended, or is somebody else's
            continue
    return [line for line in found if line]


def files_of(folder):
    """The bytes of a run's chunks and of its video."""
    paths = [*folder.glob("chunks/*"), *folder.glob("segments/*"), *folder.glob("video.*")]
    return {path.name: path.read_bytes() for path in paths if path.suffix != ".sha256"}


def cases(args):
    """The cases in a random order, each with its signal, rank, chunk and request."""
    chance = random.Random(args.seed)
    kinds = ["kill"] * args.kills + ["stop"] * args.stops + ["driver"] * args.drivers
    chance.shuffle(kinds)
    for number, kind in enumerate(kinds, start=1):
        yield {
            "name": f"case-{number}-of-{os.getpid()}",
            "number": number,
            "kind": kind,
            "split": [*SPLITS][number % len(SPLITS)],
            "rank": 0 if kind == "driver" else chance.randint(1, args.ranks - 1),
            "chunk": chance.randrange(NUM_CHUNKS - 2),
            "request": chance.randint(1, REQUESTS),
            "signal": int(signal.SIGSTOP if kind == "stop" else signal.SIGKILL),
        }


def judged(case, found, same):
    """The faults of a case, in words."""
    if "blow" not in found:
        return [f"no blow fell: {found['said']}"]
    wrong = [] if same else ["other bytes than one process"]
    if found["left"]:
        wrong.append(f"{len(found['left'])} processes left: {found['left']}")
    if case["kind"] == "driver":
        return wrong
    limit = HANG_SEEN_WITHIN if case["kind"] == "stop" else SEEN_WITHIN
    if found["status"]:
        wrong.append(f"status {found['status']}: {found['said']}")
    if found.get("seen", float("inf")) - found["blow"] > limit:
        wrong.append(f"not seen within {limit:.0f} s")
    return wrong


def try_case(case, args, place, whole):
    """Run a case, resume it where its first rank was the one, and compare; what is known of it comes back."""
    folder, several = place / case["name"], ["--gpus", str(args.ranks), "--split", case["split"]]
    words = render_words(place, *SIZE, *SPLITS[case["split"]], "--run-dir", folder, *several)
    found = run(case, words, place)
    if case["kind"] == "driver":
        again = run({"name": f"{case['name']}-again"}, ["resume", str(folder), *several], place)
        found["left"] += again["left"]
    wrong = judged(case, found, files_of(folder) == whole[case["split"]])
    seen = found["seen"] - found["blow"] if "seen" in found else None
    known = {key: case[key] for key in ("number", "kind", "split", "rank")}
    return known | {"chunk": found.get("written"), "seen_s": seen, "gone_s": found["gone"], "wrong": wrong}


def line_of(found):
    seen = "" if found["seen_s"] is None else f"seen after {found['seen_s']:.2f} s, "
    verdict = "; ".join(found["wrong"]) or "same bytes"
    return (
        f"{found['number']:3} {found['kind']:6} rank {found['rank']}, {found['split']}, {found['chunk']} chunks there: "
        f"{seen}all processes gone {found['gone_s']:.1f} s after the end, {verdict}"
    )


def summary(results):
    """The figures of all cases."""
    told = {"cases": len(results), "failed": sum(bool(found["wrong"]) for found in results)}
    for kind in ("kill", "stop"):
        if seen := [found["seen_s"] for found in results if found["kind"] == kind and found["seen_s"] is not None]:
            told[f"{kind}_seen_s"] = {"least": round(min(seen), 2), "most": round(max(seen), 2)}
    return told | {"gone_s_most": round(max(found["gone_s"] for found in results), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=4)
    parser.add_argument("--drivers", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work)
    with tempfile.TemporaryDirectory(prefix="kills") as name:
        place = Path(name)
        write_weights(place)
        model = tiny.wan(WanConfig(dim=64, ffn_dim=64, num_heads=4, num_layers=4, text_dim=64))
        save_file(
            model.state_dict(), place / "wan.safetensors", {"config": json.dumps({"transformer": {"num_heads": 4}})}
        )
        whole = {}
        for split, options in SPLITS.items():
            alone = run(
                {"name": f"alone-{split}"}, render_words(place, *SIZE, *options, "--run-dir", place / split), place
            )
            whole[split] = files_of(place / split)
            if alone["status"] or sum(name.endswith(".safetensors") for name in whole[split]) < NUM_CHUNKS:
                sys.exit(f"one process made no video: {alone['said']}")
        print(f"seed {args.seed}, {args.ranks} ranks, {NUM_CHUNKS} chunks", flush=True)
        results = []
        for case in cases(args):
            results.append(try_case(case, args, place, whole))
            print(line_of(results[-1]), flush=True)
    print(json.dumps(summary(results)))
    if args.json:
        args.json.write_text(json.dumps({"summary": summary(results), "cases": results}, indent=1))
    return int(any(found["wrong"] for found in results))


if __name__ == "__main__":
    sys.exit(main())
