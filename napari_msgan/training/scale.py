"""Training of one scale from its first step to its last, with checkpoints on the way."""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from napari_msgan.durable import patiently, sync_file, sync_folder
from napari_msgan.errors import TrainingError
from napari_msgan.networks import build_generator
from napari_msgan.steps import n_cores
from napari_msgan.training.gan import Batch, ScaleGan
from napari_msgan.training.losses import l1_per_sample
from napari_msgan.training.plateau import Plateau
from napari_msgan.training.record import Record
from napari_msgan.training.samples import LowResPool, PatchSampler, Sample, sample_random
from napari_msgan.training.start import starting_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from napari_msgan.networks.build import Build
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.gan import Losses
    from napari_msgan.training.sources import SourcePyramid

_INTERVALS = 20
_MOST_STEPS_PER_INTERVAL = 200
VALIDATION_SAMPLES = 16
_GPU_LOADERS = 4


@dataclass(frozen=True, slots=True)
class StepReport:
    """Progress of a run: `stage` is "prepare", "change", "train", "generate" or "done"."""

    stage: str
    scale: int
    step: int
    steps: int
    losses: Losses


def loaders_for(device: str) -> int:
    """Return how many threads draw samples, each for a different step.

    A GPU is faster than one thread can draw; one is enough beside a CPU that trains.
    """
    return 1 if device == "cpu" else min(_GPU_LOADERS, n_cores())


def checkpoint_of(work: Path, scale: int) -> Path:
    """Return the path of a scale's checkpoint."""
    return work / f"scale_{scale}.pt"


class ScaleTrainer:
    """Trains one scale; an interrupted run resumes as if it had never stopped.

    work : folder of checkpoints, records and (for scale 0) pools.
    build : see `ScaleGan`.
    """

    def __init__(
        self,
        config: TrainConfig,
        scale: int,
        work: Path,
        training: Sequence[SourcePyramid],
        validation: Sequence[SourcePyramid],
        fabric: Fabric,
        build: Build = build_generator,
    ) -> None:
        self._config, self._scale, self._fabric = config, scale, fabric
        self._plan, self._work = config.scales[scale], work
        self._checkpoint = checkpoint_of(work, scale)
        self.gan = ScaleGan(config, scale, fabric, build)
        self._warm_start()
        self._validation: list[Batch] = []
        if self._plan.steps:
            self._open_data(training, validation)
        # What finer scales keep learning is texture, which this loss does not see.
        watched = scale == 0 and self._validation
        patience = config.patience if watched else None
        steps = max(1, round((patience or 0) * self._plan.steps))
        self._plateau = Plateau(steps) if patience else None

    def _open_data(
        self, training: Sequence[SourcePyramid], validation: Sequence[SourcePyramid]
    ) -> None:
        self._sampler = self._sampler_of(training, "pool")
        fixed: list[Sample] = []
        if any(pyramid.n_scales > self._scale for pyramid in validation):
            fixed = self._sampler_of(validation, "validation_pool").fixed(VALIDATION_SAMPLES)
        size = self._plan.batch  # the size that memory was planned for
        parts = (fixed[start : start + size] for start in range(0, len(fixed), size))
        self._validation = [Batch.of(part, self._fabric.device) for part in parts]

    def _sampler_of(
        self, pyramids: Sequence[SourcePyramid], pool: str
    ) -> LowResPool | PatchSampler:
        """Return what draws samples of these images; `pool` holds those changed for scale 0."""
        if self._scale == 0:
            return LowResPool(self._work / pool, self._config)
        return PatchSampler(pyramids, self._scale, self.gan.generator.halo, self._config)

    def _warm_start(self) -> None:
        """Start from the coarser scale if its networks are the same, and from a given model."""
        states = self._states_before()
        given = starting_weights(self._config, self._scale)
        if given is not None:
            states["generator"] = given
        if states:
            self._restore(states)
            self.gan.start_average()

    def _states_before(self) -> dict[str, Any]:
        if not self._config.warm_start or self._scale < 2:
            return {}
        coarser = self._config.scales[self._scale - 1]
        if (coarser.network, coarser.factor) != (self._plan.network, self._plan.factor):
            return {}
        if coarser.steps == 0:
            return {"generator": starting_weights(self._config, self._scale - 1)}
        before = self._load(checkpoint_of(self._work, self._scale - 1))
        states = {"generator": before["average"]}
        # A discriminator with other strides starts afresh.
        if _shapes(before["discriminator"]) == _shapes(self.gan.discriminator.state_dict()):
            states["discriminator"] = before["discriminator"]
        return states

    def _restore(self, states: dict[str, Any]) -> None:
        """Load states into the `ScaleGan.parts` of the same names."""
        parts = self.gan.parts()
        for name, state in states.items():
            parts[name].load_state_dict(state)

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self._checkpoint.exists()

    def run(self) -> Iterator[StepReport]:
        """Train from the last checkpoint on, and yield a report per step."""
        state = self._load(self._checkpoint) if self.has_begun else None
        first = self._resume(state) if state else 0
        if first >= self._plan.steps:
            return
        record = self._open_record(first, state)
        try:
            yield from self._run(first, record)
        finally:
            if record:
                record.close()

    def _run(self, first: int, record: Record | None) -> Iterator[StepReport]:
        steps = self._plan.steps
        interval = max(1, min(_MOST_STEPS_PER_INTERVAL, steps // _INTERVALS))
        saved = time.monotonic()
        n_loaders = loaders_for(self._fabric.device.type)
        with ThreadPoolExecutor(n_loaders) as loaders:
            draws = (loaders.submit(self._draw, step) for step in range(first, steps))
            upcoming = deque(islice(draws, n_loaders))
            for step in range(first, steps):
                samples = upcoming.popleft().result()
                upcoming.extend(islice(draws, 1))
                losses = self.gan.step(step, Batch.of(samples, self._fabric.device))
                self._check_finite(losses, step)
                done, is_over = step + 1, step + 1 == steps
                if record:
                    record.add(losses)
                if done % interval == 0 or is_over:
                    validation, has_learnt = self._validate(done, record)
                    is_over |= has_learnt
                    losses |= validation
                    if record:
                        record.write(done, validation)
                if is_over or time.monotonic() - saved >= self._config.checkpoint_s:
                    self._save(steps if is_over else done, record)
                    saved = time.monotonic()
                try:
                    yield StepReport("train", self._scale, done, steps, losses)
                except GeneratorExit:  # stopped between two steps, so nothing is lost
                    if not is_over:
                        self._save(done, record)
                    raise
                if is_over:
                    return

    def _check_finite(self, losses: Losses, step: int) -> None:
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(
                f"scale {self._scale} diverged in step {step + 1}: "
                + ", ".join(f"{name} {value:g}" for name, value in losses.items())
                + ". Lower learning_rate in the settings and begin again"
            )

    def _open_record(self, first: int, state: dict[str, Any] | None) -> Record | None:
        if not self._fabric.is_global_zero:
            return None
        record = Record(self._work, self._scale, first)
        if state:
            record.load_state(state["record"])
        return record

    def _draw(self, step: int) -> list[Sample]:
        share, rank = self._plan.batch // self._fabric.world_size, self._fabric.global_rank
        return [
            self._sampler.draw(sample_random(self._config, self._scale, step, index))
            for index in range(rank * share, (rank + 1) * share)
        ]

    def _validate(self, step: int, record: Record | None) -> tuple[Losses, bool]:
        """Return the losses on the validation samples, and whether the scale has learnt enough."""
        if not self._validation:
            return {}, False
        distances, pictures = [], []
        for batch in self._validation:
            made = self.gan.apply(batch)
            distances.append(l1_per_sample(made, batch.image))
            pictures.append(self.gan.pictures(batch, made))
        if record:
            record.pictures(step, *map(torch.cat, zip(*pictures, strict=True)))
        loss = float(self._fabric.broadcast(float(torch.cat(distances).mean())))
        adversarial = self.gan.is_adversarial(step) or not self._plan.becomes_adversarial
        is_reached = (
            adversarial and self._plateau is not None and self._plateau.is_reached(step, loss)
        )
        return {"validation_l1": loss}, is_reached

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            # Adam's step counters must stay on the CPU, or every step would wait for the GPU.
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise TrainingError(
                f"the checkpoint {path} cannot be read ({error}): delete it, and its scale starts "
                "again"
            ) from error
        return state

    def _resume(self, state: dict[str, Any]) -> int:
        try:
            is_over = state["step"] >= self._plan.steps
            needed = ("generator", "average") if is_over else self.gan.parts()
            self._restore({name: state[name] for name in needed})
            if self._plateau:
                self._plateau.best, self._plateau.best_step = state["plateau"]
            return int(state["step"])
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise TrainingError(
                f"the checkpoint {self._checkpoint} is damaged or of other networks: delete it, "
                "and its scale starts again"
            ) from error

    def _save(self, step: int, record: Record | None) -> None:
        if record is None:
            return
        state: dict[str, Any] = {n: part.state_dict() for n, part in self.gan.parts().items()}
        plateau = self._plateau
        state["plateau"] = (plateau.best, plateau.best_step) if plateau else None
        partial = self._checkpoint.with_suffix(".partial")
        try:
            torch.save({**state, "step": step, "record": record.state()}, partial)
            sync_file(partial)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise TrainingError(
                f"the checkpoint {self._checkpoint} cannot be written: {error}"
            ) from error
        patiently(partial.replace, self._checkpoint)
        sync_folder(self._work)


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: part.shape for name, part in state.items()}
