"""Predicted rates on several GPUs and of farms: the tables and plots of docs/scale.md.

    python benchmarks/scale.py --json benchmarks/scale.json --plots docs

Prints the tables, as Markdown. Everything follows from a plan's operations, from rates of GPUs that are fitted to
figures of others, and from assumptions about links and workers: nothing is measured, and no GPU is needed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core.cost.cost import Cost
from histream_core.lab.bench.published import PUBLISHED
from histream_core.network.model import WAN_1_3B, WAN_14B, WanConfig
from histream_core.parallel.devices import Machine, find_device, find_link
from histream_core.parallel.farm_prediction import Farm, FarmTimes, simulate_farm
from histream_core.parallel.predict import best_rate, choose, predict
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.presets import find_preset
from histream_core.plan.sharing import DECODE, ONE, PIPELINE, SEQUENCE, SPLITS, Sharing

HD, SD, SQUARE = (1920, 1088), (832, 480), (512, 512)
GPUS = range(1, 9)
MACHINES = (("H100", "nvlink"), ("H200", "nvlink"), ("A100", "nvlink"), ("H100", "pcie"), ("4090", "pcie"))
LETTERS = {ONE: "", DECODE: " d", SEQUENCE: " s", PIPELINE: " p"}

FARM = {"videos": 1000, "frames": 241}
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SEEDS = range(5)


def histream(mode: str, frames: int = 81, size: tuple[int, int] = HD, **settings) -> Cost:
    """A video from text with HiStream's weights."""
    plan = make_plan(find_preset("histream"), mode, size=size, num_latent_frames=1 + frames // 4)
    return Cost(WAN_1_3B, plan, **settings)


def restyled(steps: int, config: WanConfig = WAN_1_3B, size: tuple[int, int] = SD) -> Cost:
    """60 chunks of a restyled video with StreamDiffusionV2's weights, in the diagonal order."""
    preset = find_preset("streamdiffusionv2").with_steps(steps)
    options = PlanOptions(restyle=preset.restyle, histories="each-step", order="diagonal")
    return Cost(config, make_plan(preset, "full", size=size, num_latent_frames=60, options=options))


def machine(device: str, link: str = "nvlink") -> Machine:
    return Machine(find_device(device), find_link(link))


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """A table in lines of Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def cell(cost: Cost, gpus: int, on: Machine) -> str:
    """The letter of the split that `auto` takes, and its rate."""
    taken = choose(cost, gpus, on).sharing
    return f"{predict(cost, taken, on):.1f}{LETTERS[taken.split]}"


def auto_rows() -> Iterator[Sequence[str]]:
    for device, link in MACHINES:
        for name, mode, taehv in (
            ("HiStream", "histream", False),
            ("HiStream+", "histream-plus", False),
            ("HiStream+, TAEHV", "histream-plus", True),
        ):
            cost = histream(mode, taehv=taehv)
            yield [f"{device}, {link}", name, *(cell(cost, gpus, machine(device, link)) for gpus in GPUS)]


def split_rows(cost: Cost, on: Machine) -> Iterator[Sequence[str]]:
    for split in SPLITS:
        rates = [best_rate(cost, split, gpus, on) for gpus in GPUS]
        yield [split, *(f"{rate.fps:.1f}" if rate else "-" for rate in rates)]


def published_rows() -> Iterator[Sequence[str]]:
    """One step, where a chunk of ours takes as many network calls as theirs."""
    sizes = {"1.3B": WAN_1_3B, "14B": WAN_14B, "480p": SD, "512x512": SQUARE}
    for published in PUBLISHED:
        model, size, device = published.name.split()
        cost, on = restyled(1, sizes[model], sizes[size]), machine(device)
        ours = [predict(cost, Sharing(PIPELINE if gpus > 1 else ONE, gpus), on) for gpus in range(1, 5)]
        pairs = zip(ours, (row[0] for row in published.fps), strict=True)
        yield [published.name, *(f"{mine:.1f} / {theirs:.1f}" for mine, theirs in pairs)]


def farms() -> dict[int, tuple[FarmTimes, FarmTimes]]:
    """For each number of workers a list of 1,000 videos, and one video for each worker; means over some seeds."""
    cost = histream("histream-plus", FARM["frames"])
    seconds = cost.plan.num_pixel_frames / predict(cost, Sharing(ONE), machine("H100"))
    farm = Farm(1, FARM["videos"], seconds, cost.plan.num_chunks)
    lists = {workers: replace(farm, workers=workers) for workers in WORKERS}
    return {workers: (_means(one), _means(replace(one, videos=workers))) for workers, one in lists.items()}


def _means(farm: Farm) -> FarmTimes:
    nights = [asdict(simulate_farm(farm, seed)) for seed in SEEDS]
    return FarmTimes(**{name: mean(night[name] for night in nights) for name in nights[0]})


def farm_rows() -> Iterator[Sequence[str]]:
    for workers, (night, one_each) in farms().items():
        yield [
            f"{workers:,}",
            f"{night.seconds / 3600:.2f} h",
            f"{night.half / 3600:.2f} h",
            f"{night.busy:.0%}",
            f"{one_each.half:.0f} s",
            f"{one_each.seconds:.0f} s",
        ]


def tables() -> dict[str, list[str]]:
    """All tables of the page, by name."""
    gpus = [str(number) for number in GPUS]
    splits = {
        "HiStream+ at 1920x1088": histream("histream-plus"),
        "HiStream+ at 1920x1088, decoded by a TAEHV": histream("histream-plus", taehv=True),
        "StreamDiffusionV2 at 832x480, 1 step": restyled(1),
        "StreamDiffusionV2 at 832x480, 2 steps": restyled(2),
        "StreamDiffusionV2 at 832x480, 4 steps": restyled(4),
    }
    workers = ["workers", "1,000 videos", "half of them", "busy", "one video each: half of them", "all of them"]
    found = {"auto": list(table(["GPUs", "video", *gpus], auto_rows()))}
    found |= {name: list(table([name, *gpus], split_rows(cost, machine("H100")))) for name, cost in splits.items()}
    found["published"] = list(table(["predicted / published", "1", "2", "3", "4"], published_rows()))
    found["farm"] = list(table(workers, farm_rows()))
    return found


def draw(folder: Path) -> None:
    """Write the plots."""
    from histream_core.lab.charts.plots import line_plot

    def rates(cost: Cost, on: Machine) -> list[float]:
        return [predict(cost, choose(cost, gpus, on).sharing, on) for gpus in GPUS]

    def by_split(cost: Cost) -> dict[str, list[float]]:
        found = {split: [best_rate(cost, split, gpus, machine("H100")) for gpus in GPUS] for split in SPLITS}
        alone = predict(cost, Sharing(ONE), machine("H100"))
        return {
            split: [rate.fps if rate else alone for rate in column] for split, column in found.items() if column[-1]
        }

    nights = farms()
    video = histream("histream-plus")
    plots = {
        "gpus": (
            "Predicted frames a second of HiStream+ at 1920x1088, by number of GPUs",
            GPUS,
            {f"{device}, {link}": rates(video, machine(device, link)) for device, link in MACHINES}
            | {"H100, nvlink, TAEHV": rates(replace(video, taehv=True), machine("H100"))},
        ),
        "splits": ("Predicted frames a second of HiStream+ on H100, by number of GPUs", GPUS, by_split(video)),
        "restyled": (
            "Predicted frames a second of StreamDiffusionV2 with 2 steps at 832x480 on H100, by number of GPUs",
            GPUS,
            by_split(restyled(2)),
        ),
        "farm": (
            "Predicted minutes of a farm for 1,000 videos of 241 frames, by number of workers",
            WORKERS[3:],
            {
                "all of them": [nights[workers][0].seconds / 60 for workers in WORKERS[3:]],
                "half of them": [nights[workers][0].half / 60 for workers in WORKERS[3:]],
            },
        ),
        "farm-busy": (
            "Predicted share of the workers' time that makes videos, in percent, by number of workers",
            WORKERS,
            {
                "1,000 videos": [100 * nights[workers][0].busy for workers in WORKERS],
                "one video each": [100 * nights[workers][1].busy for workers in WORKERS],
            },
        ),
    }
    for name, (title, steps, arms) in plots.items():
        (folder / f"scale-{name}.svg").write_bytes(line_plot(title, list(steps), arms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="F", help="write the tables there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the plots there")
    args = parser.parse_args()
    found = tables()
    if args.json:
        args.json.write_text(json.dumps({"predicted": True, "tables": found}, indent=1) + "\n")
    if args.plots:
        draw(args.plots)
    for name, lines in found.items():
        sys.stdout.write("\n".join([f"\n{name}\n", *lines]) + "\n")


if __name__ == "__main__":
    main()
