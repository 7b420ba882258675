"""Walls of the house: which room may import which."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "histream_core"
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
DENOISE_PATH = ("plan", "network", "stream")
PACKAGES = {"torch", "numpy", "einops", "safetensors", "comfy_kitchen"} | set(sys.stdlib_module_names)

ARROWS = {
    "plan": set(),
    "files": set(),
    "live": {"files", "network", "plan", "runs", "stream", "vae", "video"},
    "network": {"files", "plan"},
    "video": {"files", "network", "plan"},
    "vae": {"network", "plan"},
    "stream": {"network", "plan"},
    "demo": {"files", "network", "vae"},
    "weights": {"files", "network", "plan", "vae"},
    "cost": {"network", "plan", "vae", "video"},
    "parallel": {"cost", "files", "network", "plan", "stream", "vae"},
    "runs": {"cost", "demo", "files", "network", "parallel", "plan", "stream", "vae", "video", "weights"},
    "lab": {"cost", "demo", "files", "live", "network", "plan", "runs", "stream", "vae", "video", "weights"},
    "farm": {"cost", "files", "parallel", "plan", "runs", "video"},
    "cli": {
        "cost",
        "demo",
        "farm",
        "files",
        "lab",
        "live",
        "network",
        "parallel",
        "plan",
        "runs",
        "stream",
        "vae",
        "video",
        "weights",
    },
}
"""Each room of the core, and the rooms below it that it may import. `__init__` of the core may import any."""

FLOORS = 9


@cache
def tree(path):
    """The syntax tree of a file, parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    """The modules that a file imports, anywhere in it, by their absolute names within the checkout."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def packages(path):
    """The top-level packages that a file imports, but not its own."""
    return {name.split(".")[0] for name in imported(path)} - {"histream_core"}


def rooms(path):
    """The other rooms of the core that a file imports."""
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == "histream_core" and parts[1] in ARROWS} - {room_of(path)}


def room_of(path):
    return path.relative_to(CORE).parts[0]


def files(room):
    return sorted((CORE / room).rglob("*.py"))


def name(path):
    return path.relative_to(CORE).as_posix()


def test_the_table_names_every_room():
    """Seen to fail with a folder that the table does not know."""
    there = {path.name for path in CORE.iterdir() if path.name not in ("__pycache__", "__init__.py")}
    assert there == ARROWS.keys()


def test_arrows_between_rooms_are_those_of_the_table():
    """Seen to fail with an import of `cli` in `lab`, also within a function."""
    forbidden = {name(path): rooms(path) - below for room, below in ARROWS.items() for path in files(room)}
    assert not {path: found for path, found in forbidden.items() if found}


def test_arrows_go_downwards_only():
    """A circle has no floor. Seen to fail with `stream` added to the arrows of `plan`, and with one floor less."""
    floors = {}
    while len(floors) < len(ARROWS):
        ready = [room for room, below in ARROWS.items() if room not in floors and below <= floors.keys()]
        assert ready, f"a circle among {ARROWS.keys() - floors.keys()}"
        floors |= {room: 1 + max((floors[other] for other in ARROWS[room]), default=0) for room in ready}
    assert max(floors.values()) <= FLOORS


def test_core_does_not_know_the_host():
    for path in CORE.rglob("*.py"):
        assert not packages(path) & HOST, path


def test_the_denoise_path_needs_four_packages_alone():
    """comfy-kitchen is a choice, imported by name where it was chosen."""
    for path in [path for room in DENOISE_PATH for path in files(room)]:
        assert packages(path) <= PACKAGES, path


def test_nodes_do_not_know_the_command_line():
    for path in (ROOT / "nodes").rglob("*.py"):
        assert not any(".cli." in f"{module}." for module in imported(path)), path


def test_one_folder_imports_the_host_for_all_nodes():
    """Seen to fail with `import folder_paths` in nodes/model/load_model.py."""
    for path in (ROOT / "nodes").rglob("*.py"):
        assert path.parent.name == "host" or not packages(path) & HOST - {"nodes"}, path


def test_no_pickle_no_eval_no_network_in_the_pack():
    for path in [*CORE.rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        assert not packages(path) & {"pickle", "requests", "urllib", "socket", "http", "subprocess"}, path
        calls = {node.func.id for node in ast.walk(tree(path))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert not calls & {"eval", "exec", "__import__"}, path


def loaded_by(statement, names):
    """Which of `names` are loaded in a new process after `statement`."""
    code = f"import sys; sys.path.append(sys.argv[1]); {statement}; print(*{set(names)!r} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    return out.stdout.split()


def test_importing_the_engine_loads_nothing_heavy():
    """A hard import of an optional package would take the whole pack down where it is missing."""
    engine = "import histream_core.stream.stream, histream_core.network.forward, histream_core.cli"
    heavy = {"av", "transformers", "kornia", "matplotlib", "PIL", "flash_attn", "triton", "ray", "comfy"}
    assert loaded_by(engine, heavy) == []


def test_plans_are_pure_values():
    """Seen to fail with `import torch` in plan/positions.py."""
    assert loaded_by("import histream_core.plan, histream_core.plan.chunks", {"torch", "numpy"}) == []


def test_the_help_of_every_verb_loads_no_torch():
    """Seen to fail with `from ...weights.loading import DTYPES` in cli/options/adding.py."""
    verbs = "from histream_core.cli import VERBS, _parser; [_parser(verb) for verb in ('', *VERBS)]"
    assert loaded_by(verbs, {"torch", "av", "transformers", "PIL", "ray"}) == []
    assert "torch" in loaded_by(f"{verbs}; import histream_core.cli.verbs.videos", {"torch"})


def test_the_drift_plot_needs_pillow_alone():
    """ComfyUI brings Pillow and not matplotlib. Seen to fail with an import of charts/plots.py."""
    assert loaded_by("import histream_core.lab.charts.drift", {"matplotlib", "kornia", "PIL"}) == ["PIL"]
