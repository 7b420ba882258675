"""The choice of the library that computes attention: refusals by name, and equal results of all libraries."""

import sys

import pytest
import tiny
import torch

from histream_core.network.ops import attention
from histream_core.network.ops.attention import CUDNN_FIRST, PACKAGES, cudnn_first, sdpa
from histream_core.network.ops.attention import choose_attention as choose

CPU, GPU = torch.device("cpu"), torch.device("cuda")

ANSWERS = {"fa2": "y", "fa3": "y, None", "fa4": "y, None", "sage": "y", "int8": "y"}
"""The expressions that the packages return; those of FlashAttention are tuples with the logarithms of sums."""

OPTIONS = {
    "fa2": "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, "
    "deterministic=False, return_attn_probs=False",
    "sage": 'tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs',
}
"""Options that the packages' functions take besides; those of FlashAttention 2 are of its releases 2.6 to 2.8."""

CHECKS = {"sage": 'assert tensor_layout == "NHD"'}
"""The values that these options must have."""

FAKE = """
import torch

def {function}(q, k, v, {options}):
    assert q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256 and q.stride(-1) == 1
    assert q.shape[{heads_at}] == 12, "heads are in another dimension"
    {check}
    q, k, v = (x if {heads_at} == 1 else x.transpose(1, 2) for x in (q, k, v))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    y = y if {heads_at} == 1 else y.transpose(1, 2).contiguous()
    return {answer}
"""


@pytest.fixture
def capability(monkeypatch):
    """Set the compute capability of CUDA devices."""

    def be(*numbers):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: numbers)

    be(9, 0)
    return be


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a fake package that has the name and the signature of the real one."""
    monkeypatch.syspath_prepend(tmp_path)

    def fake(name):
        package = PACKAGES[name]
        path = tmp_path.joinpath(*package.module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        heads_at = 1 if package.heads_first else 2
        about = {"function": package.function, "options": OPTIONS.get(name, ""), "answer": ANSWERS[name]}
        about["check"] = CHECKS.get(name, "")
        path.write_text(FAKE.format(heads_at=heads_at, **about))
        for module in (package.module, package.module.split(".")[0]):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return package

    before = dict(sys.modules)
    yield fake
    for module in {part for package in PACKAGES.values() for part in (package.module, package.module.split(".")[0])}:
        sys.modules.pop(module, None)
        sys.modules.update({module: before[module]} if module in before else {})


def queries(dtype=torch.float32):
    """Queries, keys and values with the heads of the real model: 40 queries, 90 keys."""
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, n, 12, 128, generator=draw).to(dtype) for n in (40, 90, 90))


def exact(q, k, v):
    scores = torch.einsum("blnd,bknd->bnlk", q.double(), k.double()) / q.shape[-1] ** 0.5
    return torch.einsum("bnlk,bknd->blnd", scores.softmax(dim=-1), v.double())


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_called_as_it_wants_and_imported_when_it_is(name, install, capability):
    """Seen to fail with heads in the wrong dimension, and with the whole tuple returned."""
    package = install(name)
    call, words = choose(name, GPU, torch.bfloat16)
    assert words == name
    assert package.module not in sys.modules
    got = call(*queries(torch.bfloat16))
    assert got.shape == (1, 40, 12, 128)
    assert torch.equal(got, sdpa(*queries(torch.bfloat16)))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_packages_numbers_are_those_of_attention(name, install, capability):
    """By stand-ins that compute in torch, with the packages' signatures and defaults."""
    install(name)
    got, wanted = choose(name, GPU, torch.bfloat16)[0](*queries(torch.bfloat16)), exact(*queries())
    assert (got - wanted).norm() / wanted.norm() < 5e-3


def test_flash_attention_4_alone_is_not_taken_for_2(install, capability):
    """Both lie in `flash_attn`. Seen to fail with that module as the one of 2."""
    install("fa4")
    with pytest.raises(ValueError, match="fa2 is not installed: install flash-attn for this torch"):
        choose("fa2", GPU, torch.bfloat16)


@pytest.mark.parametrize("call", [sdpa, cudnn_first])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_it_is_attention_at_the_sizes_of_the_real_model(call, dtype, error):
    got, wanted = call(*queries(dtype)), exact(*queries())
    assert (got - wanted).norm() / wanted.norm() < error


def test_on_a_hopper_gpu_cudnn_comes_first_and_nowhere_else(monkeypatch, capability):
    """Seen to fail without `set_priority`: PyTorch then ignores the order of the list."""
    orders = []
    compute = torch.nn.functional.scaled_dot_product_attention

    def noting(*args):
        orders.append(torch._C._get_sdp_priority_order()[: len(CUDNN_FIRST)])
        return compute(*args)

    before = torch._C._get_sdp_priority_order()
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    call, words = choose("auto", GPU, torch.bfloat16)
    call(*queries())
    assert (words, orders) == ("sdpa, cuDNN first", [[int(backend) for backend in CUDNN_FIRST]])
    assert torch._C._get_sdp_priority_order() == before
    for numbers in ((8, 9), (10, 0), (12, 0)):
        capability(*numbers)
        assert choose("auto", GPU, torch.bfloat16) == (sdpa, "sdpa")
    assert choose("sdpa", CPU, torch.float32) == (sdpa, "sdpa")


@pytest.mark.parametrize("name", PACKAGES)
def test_what_is_not_installed_is_refused_with_what_to_install(name, capability, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda module: None)
    with pytest.raises(
        ValueError, match=f"attention {name} is not installed: install {PACKAGES[name].install} .* auto"
    ):
        choose(name, GPU, torch.bfloat16)


def test_a_package_that_is_broken_is_one_that_is_not_there(install, tmp_path):
    """`flash_attn` is imported to find its submodule. Seen to fail when only ModuleNotFoundError is caught."""
    install("fa4")
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise ImportError('undefined symbol')")
    with pytest.raises(ValueError, match="fa4 is not installed"):
        choose("fa4", GPU, torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "device", "numbers", "dtype", "said"),
    [
        ("fa2", GPU, (7, 5), torch.float16, "no kernels for this device"),
        ("fa2", GPU, (8, 6), torch.float32, "bfloat16 or float16, not float32"),
        ("fa3", CPU, (9, 0), torch.bfloat16, "no kernels for this device"),
        ("fa3", GPU, (8, 9), torch.bfloat16, "no kernels for this device"),
        ("fa3", GPU, (12, 0), torch.bfloat16, "no kernels for this device"),
        ("fa4", GPU, (8, 0), torch.bfloat16, "no kernels for this device"),
        ("sage", GPU, (7, 5), torch.float16, "no kernels for this device"),
        ("int8", GPU, (8, 9), torch.float32, "bfloat16 or float16, not float32"),
    ],
)
def test_what_cannot_run_there_is_refused(name, device, numbers, dtype, said, install, capability):
    install(name)
    capability(*numbers)
    with pytest.raises(ValueError, match=f"attention {name} .*{said}: choose auto"):
        choose(name, device, dtype)


def test_the_hosts_own_is_chosen_where_there_is_a_host():
    host = (exact, "host (pytorch)")
    assert choose("auto", CPU, torch.float32, host=host) == host == choose("host", CPU, torch.float32, host=host)
    assert choose("sdpa", CPU, torch.float32, host=host) == (sdpa, "sdpa")
    with pytest.raises(ValueError, match="host is ComfyUI's own: outside of it choose auto or sdpa"):
        choose("host", CPU, torch.float32)


@pytest.mark.parametrize("call", [cudnn_first, lambda *qkv: exact(*qkv).float()], ids=["sdpa, cuDNN first", "exact"])
def test_a_video_is_the_same_but_for_last_bits(call):
    wanted = tiny.video(tiny.plan())
    got = tiny.video(tiny.plan(), denoise=tiny.Denoiser(tiny.wan(), attention=call))
    assert (got - wanted).norm() / wanted.norm() < 1e-5


def test_sage_is_given_tensors_as_they_are(install, capability):
    """With heads first it copies its output. Seen to fail without the layout."""
    install("sage")
    made = choose("sage", GPU, torch.bfloat16)[0](*queries(torch.bfloat16))
    assert made.is_contiguous()
