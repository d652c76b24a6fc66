"""How many steps a method may take: equal time, or an equal number of patches.

The learning rate follows the number of steps, so that number is fixed before training begins; for
equal time it is derived from the measured seconds of a step.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from napari_msgan.training.scale import ScaleTrainer

_CALIBRATION_STEPS = 16
#: The first steps of either kind pay for buffers.
_UNCOUNTED = 3
_FEWEST_STEPS = 20


@dataclass(frozen=True)
class Budget:
    """What every method of a table gets: one of the three.

    patches : of the size that `ours` uses; a larger image counts as the patches that fit in it.
    steps : of each scale.
    """

    minutes: float | None = None
    patches: float | None = None
    steps: dict[int, int] | None = None

    def share(self, scales, scale):
        """Return the share of one scale: half for scale 0, the other half for all the others."""
        if len(scales) == 1:
            return 1.0
        return 0.5 if scale == 0 else 0.5 / (len(scales) - 1)


def patches_of(plan, patch_shape):
    """Return how many patches of a shape one step of a scale sees."""
    return plan.batch * math.prod(plan.patch_shape) / math.prod(patch_shape)


def with_steps(config, scale, steps):
    """Return settings with another number of steps for one scale."""
    plans = list(config.scales)
    plans[scale] = plans[scale].model_copy(update={"steps": max(_FEWEST_STEPS, round(steps))})
    return config.model_copy(update={"scales": tuple(plans)})


def budgeted(run, budget, patch_shape, seconds_per_step):
    """Return the settings of a run with the steps that its budget allows.

    Parameters
    ----------
    seconds_per_step : function of a scale, called only for equal time.
    """
    config = run.config
    for scale in run.scales:
        share, plan = budget.share(run.scales, scale), config.scales[scale]
        if budget.steps is not None:
            steps = budget.steps[scale]
        elif budget.minutes is not None:
            steps = 60 * budget.minutes * share / seconds_per_step(scale)
        else:
            steps = budget.patches * share / patches_of(plan, patch_shape)
        config = with_steps(config, scale, steps)
    return config


def measure_step(run, scale, folder, training, fabric):
    """Return the mean seconds of a step over the whole of its training, with and without GAN.

    On a CPU these are processor seconds of a step that one thread computes (while another draws
    samples), so that a method gets no fewer steps because other work ran beside it.
    """
    work = folder / f"calibration_{scale}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if scale == 0:
        (work / "pool").symlink_to((folder / "pool").absolute())
    plans, plan = list(run.config.scales), run.config.scales[scale]
    plans[scale] = plan.model_copy(update={"steps": _CALIBRATION_STEPS, "gan_from": 0.5})
    update = {"scales": tuple(plans), "warm_start": False}
    config = run.config.model_copy(update=update)
    trainer = ScaleTrainer(config, scale, work, training, [], fabric, run.build)
    seconds = {False: [], True: []}
    with _clock(fabric) as clock:
        before = clock()
        for report in trainer.run():
            now = clock()
            seconds["adversarial" in report.losses].append(now - before)
            before = now
    shutil.rmtree(work)
    plain, adversarial = (statistics.median(seconds[kind][_UNCOUNTED:]) for kind in (False, True))
    if plan.gan_weight == 0:
        return plain
    return plan.gan_from * plain + (1 - plan.gan_from) * adversarial


@contextmanager
def _clock(fabric):
    if fabric.device.type != "cpu":
        yield time.monotonic
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other, and be counted for that
    try:
        yield time.process_time
    finally:
        torch.set_num_threads(threads)
