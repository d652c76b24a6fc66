"""Checkpoints with the layers of the method's authors and random weights."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path


def layout(width: int, *, low_res: bool) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights of one of their generators."""
    shapes: dict[str, tuple[int, ...]] = {}
    place = itertools.count()

    def add(name: str, n_out: int, *shape: int) -> None:
        shapes[f"model.{name}.weight"] = shape or (n_out,)
        shapes[f"model.{name}.bias"] = (n_out,)

    def add_normalised(n_out: int, *shape: int) -> None:
        add(str(next(place)), n_out, *shape)
        add(str(next(place)), n_out)
        next(place)  # activation

    w = width
    add_normalised(w, w, 1 if low_res else 2, 3, 3, 3)
    if low_res:
        add_normalised(w, w, w, 4, 4, 4)
    add_normalised(2 * w, 2 * w, w, 4, 4, 4)
    add_normalised(4 * w, 4 * w, 2 * w, 4, 4, 4)
    for _ in range(6):
        block = f"{next(place)}.conv_block"
        add(f"{block}.0", 4 * w, 4 * w, 4 * w, 3, 3, 3)
        add(f"{block}.1", 4 * w)
        add(f"{block}.4", 4 * w, 4 * w, 4 * w, 3, 3, 3)
        add(f"{block}.5", 4 * w)
    add_normalised(2 * w, 4 * w, 2 * w, 4, 4, 4)
    add_normalised(w, 2 * w, w, 4, 4, 4)
    add(str(next(place)), 1, 1, w, 7, 7, 7)
    return shapes


def random_weights(width: int, *, low_res: bool, seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in layout(width, low_res=low_res).items():
        values = torch.randn(shape, generator=random)
        if len(shape) > 1:
            weights[name] = values / torch.Size(shape[1:]).numel() ** 0.5
        else:
            weights[name] = 0.2 * values + (1.0 if name.endswith("weight") else 0.0)
    return weights


def write_checkpoints(
    folder: Path, *, widths: tuple[int, ...] = (2, 3, 2), experiment: str = "Toy"
) -> Path:
    """Write a checkpoint per scale; `widths` differ to test that each is found separately."""
    for scale, width in enumerate(widths):
        part = folder / f"{experiment}_{f'HR{scale}' if scale else 'LR'}"
        part.mkdir(parents=True)
        weights = random_weights(width, low_res=scale == 0, seed=scale)
        torch.save(weights, part / "NETG_best.pth")
    return folder
