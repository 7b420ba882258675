"""A real ComfyUI for the tests marked `host`: the pack loaded into it the way it loads packs, and tiny models.

The ComfyUI is the source tree at COMFYUI_PATH, else ~/comfy/ComfyUI. Without one, these tests are skipped, and the
summary says so in a line of its own.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
sys.path.append(str(Path(__file__).parent))  # for comfy_server; at the end, as in tests/conftest.py

TINY = {"dim": 96, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 32, "freq_dim": 32}


def pytest_collection_modifyitems(items):
    here = [item for item in items if Path(item.fspath).is_relative_to(Path(__file__).parent)]
    for item in here:
        item.add_marker(pytest.mark.host)
        if why := why_no_guard() if item.path.name == "test_guard.py" else why_not():
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter):
    if why_not():
        terminalreporter.section("HOST TESTS WERE SKIPPED", sep="!", red=True)
        terminalreporter.write_line(f"Nothing was tested inside ComfyUI: {why_not()}.")
    if why_no_guard():
        terminalreporter.section("COMFY-IMPORT-GUARD DID NOT RUN", sep="!", red=True)
        terminalreporter.write_line(f"No import or call of the host was compared with its source: {why_no_guard()}.")


def why_not() -> str:
    """Why no host tests can run; empty where they can."""
    if not (COMFYUI / "comfy" / "sd.py").exists():
        return f"no ComfyUI source tree at {COMFYUI} (set COMFYUI_PATH; docs/host-tests.md says how to get one)"
    missing = [name for name in ("comfy_kitchen", "comfy_aimdo", "torchsde") if not importlib.util.find_spec(name)]
    if missing:
        return f"this Python lacks what ComfyUI needs ({', '.join(missing)}; docs/host-tests.md says how to get it)"
    return ""


def why_no_guard() -> str:
    """Why comfy-import-guard cannot run, which reads a git clone of the host and imports nothing of it."""
    if not (COMFYUI / ".git").exists():
        return f"{COMFYUI} is no git clone of ComfyUI (set COMFYUI_PATH; docs/host-tests.md says how to get one)"
    return "" if importlib.util.find_spec("comfy_import_guard") else "it is not installed (pip install -e '.[dev]')"


@pytest.fixture(scope="session")
def clone() -> Path:
    """The host's git clone, nothing of which is imported."""
    return COMFYUI


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's source tree, imported and set to run on the CPU."""
    sys.path.insert(0, str(COMFYUI))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    return COMFYUI


@pytest.fixture(scope="session")
def pack(comfyui):
    """The pack, imported as the host imports it: by path, under a name that is no package of ours."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    def part(path: str):
        return importlib.import_module(f"{name}.{path}")

    return SimpleNamespace(module=module, part=part)


@pytest.fixture(scope="session")
def wan_weights() -> dict[str, torch.Tensor]:
    """Random weights of a tiny Wan transformer, under the usual keys."""
    from histream_core.network.model import WanConfig, WanModel

    torch.manual_seed(0)
    model = WanModel(WanConfig(**TINY))
    return {key: torch.randn_like(value) * 0.1 for key, value in model.state_dict().items()}


@pytest.fixture(scope="session")
def load_wan(comfyui, wan_weights):
    """Load the tiny transformer as the host does: a MODEL of class WanModel, or CausalWanModel where `causal`."""
    import json

    import comfy.sd

    def load(*, causal: bool = False, **model_options):
        config = {"num_heads": TINY["num_heads"], "text_dim": TINY["text_dim"], "freq_dim": TINY["freq_dim"]}
        config |= {"causal_ar": True} if causal else {}
        weights = {key: value.clone() for key, value in wan_weights.items()}
        return comfy.sd.load_diffusion_model_state_dict(
            weights, model_options=model_options, metadata={"config": json.dumps({"transformer": config})}
        )

    return load


@pytest.fixture
def positive() -> list:
    """CONDITIONING of one prompt."""
    return [[torch.randn(1, 7, TINY["text_dim"], generator=torch.Generator().manual_seed(1)), {}]]


@pytest.fixture
def latent():
    """An empty LATENT of `frames` latent frames at a size in pixels."""

    def make(frames: int = 7, width: int = 64, height: int = 64, batch: int = 1) -> dict:
        return {"samples": torch.zeros(batch, 16, frames, height // 8, width // 8)}

    return make


@pytest.fixture
def sample(pack):
    """Sample with the node's defaults and seed 3, and `schedule` where given."""
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler

    def run(model, positive, latent, schedule=None) -> torch.Tensor:
        return node.execute(model, positive, latent, 3, schedule).result[0]["samples"]

    return run


@pytest.fixture
def lora(comfyui):
    """A function that puts a LoRA on a MODEL, by the host's own loader."""
    import comfy.sd

    generator = torch.Generator().manual_seed(4)
    dim = TINY["dim"]
    weights = {}
    for key in ("blocks.0.self_attn.q", "blocks.1.cross_attn.v", "blocks.1.self_attn.k"):
        weights[f"diffusion_model.{key}.lora_A.weight"] = torch.randn(4, dim, generator=generator)
        weights[f"diffusion_model.{key}.lora_B.weight"] = torch.randn(dim, 4, generator=generator) * 0.1

    def put(model):
        return comfy.sd.load_lora_for_models(model, None, dict(weights), 1.0, 0.0)[0]

    return put


@pytest.fixture
def progress(comfyui):
    """Progress that a node reports to the host: a list of (value, total, preview)."""
    import comfy.utils

    told = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: told.append((value, total, preview))
    )
    yield told
    comfy.utils.set_progress_bar_global_hook(None)


@pytest.fixture(scope="session")
def vae(comfyui):
    """A VAE of the host around a tiny Wan VAE of random weights."""
    import comfy.sd

    from histream_core.vae.model import WanVAE

    torch.manual_seed(2)
    return comfy.sd.VAE(sd=WanVAE(dim=8).state_dict())


@pytest.fixture
def output(comfyui, tmp_path):
    """The host's output folder, for one test."""
    import folder_paths

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_output_directory(before)


@pytest.fixture(scope="session")
def start_server():
    """Start a ComfyUI server with the pack in it, on a folder and with flags of its own; a context manager."""
    from comfy_server import Server

    return lambda folder, *flags: Server(COMFYUI, ROOT, folder, *flags)


@pytest.fixture(scope="session")
def server(start_server, tmp_path_factory):
    """A running ComfyUI server with the pack in it."""
    with start_server(tmp_path_factory.mktemp("comfyui")) as running:
        yield running
