"""Muon: momentum and orthogonalised updates for matrices, AdamW for vectors and tables.

After Jordan et al. 2024 (Muon), with the update scaled to AdamW's usual size (Liu et al. 2025). Matrices of one shape
are orthogonalised in one batched product. torch.optim.Muon refuses the VAE's kernels, which are flattened to matrices
here, and orthogonalises in bfloat16: its updates differ by about 1%, and on a CPU it takes 4 to 27 times as long.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from training import processes

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, steps: int = 4, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Approximate the nearest semi-orthogonal matrices of [K, rows, columns] (singular values about 0.7 to 1.2).

    `dtype` is that of the products; matrices come back in the stack's own.
    """
    a, b, c = NEWTON_SCHULZ
    wide = stack.shape[-2] <= stack.shape[-1]
    x = stack if wide else stack.mT
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Muon at `lr` for `matrices`, AdamW at `other_lr` for `others`; `scale_lr` scales both rates."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        lr: float,
        other_lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        groups = [
            {"params": list(matrices), "base": lr, "lr": lr, "muon": True},
            {"params": list(others), "base": other_lr, "lr": other_lr, "muon": False},
        ]
        super().__init__(groups, {"weight_decay": weight_decay, "momentum": momentum})
        self.orthogonalise = partial(orthogonalise, dtype=dtype)

    def scale_lr(self, factor: float) -> None:
        for group in self.param_groups:
            group["lr"] = group["base"] * factor

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adam)(params, group)

    def _muon(self, params: list[nn.Parameter], group: dict) -> None:
        stacks = defaultdict(list)
        for p in params:
            state = self.state[p]
            buffer = state.setdefault("momentum", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            update = torch.lerp(p.grad, buffer, group["momentum"]).flatten(1)
            stacks[update.shape].append((p, update))
        for (rows, columns), members in stacks.items():
            updates = processes.in_parts(self.orthogonalise, torch.stack([u for _, u in members]))
            size = -0.2 * group["lr"] * max(rows, columns) ** 0.5
            for (p, _), update in zip(members, updates, strict=True):
                p.add_(update.reshape(p.shape), alpha=size)

    def _adam(self, params: list[nn.Parameter], group: dict) -> None:
        for p in params:
            state = self.state[p]
            if not state:
                state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            state["mean"].lerp_(p.grad, 0.1)
            state["square"].lerp_(p.grad.square(), 0.02)
            mean = state["mean"] / (1 - 0.9 ** state["step"])
            square = state["square"] / (1 - 0.98 ** state["step"])
            p.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"])
