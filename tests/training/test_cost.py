from pathlib import Path

import pytest
import torch

from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.networks import build_generator
from napari_msgan.training import cost
from napari_msgan.training.config import ScaleTraining
from napari_msgan.training.cost import _kept_bytes, disk_of, memory_of, memory_short_of
from napari_msgan.training.samples import PatchSampler, sample_random
from napari_msgan.training.sources import prepare
from napari_msgan.training.survey import TrainingFile, survey
from tests.training.made import blobs, config_of, write_image


def plan_of(network, **changes):
    return ScaleTraining(
        **{"network": network, "factor": (2, 2), "steps": 1, "batch": 2, "patch_shape": (64, 64)}
        | changes
    )


def test_tensors_without_data_count_what_real_ones_keep():
    def kept(device):
        with torch.device(device):
            network = build_generator(LowResNetwork(widths=(8, 16)), (2, 2))
            return _kept_bytes(network, torch.zeros((2, 1, 64, 64)))

    assert kept("meta") == kept("cpu") > 64 * 64 * 2 * 8 * 4


def test_memory_grows_with_batch_patch_and_width():
    base = memory_of(plan_of(PatchNetwork(width=16, blocks=2)))
    assert 1.4 < memory_of(plan_of(PatchNetwork(width=16, blocks=2), batch=4)) / base < 2
    assert memory_of(plan_of(PatchNetwork(width=16, blocks=2), patch_shape=(128, 128))) > 2 * base
    assert memory_of(plan_of(PatchNetwork(width=64, blocks=2))) > 1.3 * base


def test_memory_is_counted_for_the_samples_that_are_drawn(tmp_path, monkeypatch):
    write_image(tmp_path / "a.ome.tif", blobs((150, 130), 0))
    config, counted, kept = config_of(2), [], cost._kept_bytes

    def seen(network, *inputs):
        counted.append([tuple(tensor.shape) for tensor in inputs])
        return kept(network, *inputs)

    monkeypatch.setattr(cost, "_kept_bytes", seen)
    plan = config.scales[1]
    memory_of(plan.model_copy(update={"batch": 3}))
    ((_, _, pyramid),) = prepare(survey(tmp_path), tmp_path / "cache", config)
    halo = build_generator(plan.network, plan.factor).halo
    sample = PatchSampler([pyramid], 1, halo, config).draw(sample_random(config, 1, 0, 0))
    assert counted[0] == [(3, 1, *sample.coarse.shape), (3, 1, *sample.sketch.shape)]


def test_processes_that_train_together_ask_for_the_memory_of_their_own_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (asked.append(device), 0))
    cost.free_memory_of("cuda")
    monkeypatch.setenv("LOCAL_RANK", "2")
    for device in ("cuda", "cuda:1"):
        cost.free_memory_of(device)
    assert asked == ["cuda:0", "cuda:2", "cuda:1"]


def test_a_step_that_no_memory_is_free_for_is_told(monkeypatch):
    config = config_of(2)
    assert memory_short_of(config, "cpu") is None
    scales = (*config.scales[:1], config.scales[1].model_copy(update={"batch": 4096}))
    monkeypatch.setattr(cost, "free_memory_of", lambda device: 10**7)
    scale, needed, free = memory_short_of(config.model_copy(update={"scales": scales}), "cpu")
    assert (scale, free) == (1, 10**7)
    assert needed > 2 * free
    four = memory_short_of(config.model_copy(update={"scales": scales}), "cuda", 4)
    assert four[1] == pytest.approx(needed / 4, rel=0.1)
    assert memory_short_of(config.model_copy(update={"scales": scales}), "cpu", 4)[1] == needed
    taken = (scales[0], scales[1].model_copy(update={"steps": 0}))  # no step is made
    assert memory_short_of(config.model_copy(update={"scales": taken}), "cpu") is None


@pytest.mark.parametrize(
    ("shape", "least"),
    [((200, 160), 0.3), ((900, 720), 0.15)],  # reduced to 225 pixels of the 362 that it may have
    ids=["as it is", "reduced"],
)
def test_predicted_disk_holds_what_preparing_writes(tmp_path, shape, least):
    for seed in range(2):
        write_image(tmp_path / f"{seed}.ome.tif", blobs(shape, seed))
    files = survey(tmp_path)
    config = config_of(2, base_size=64)
    list(prepare(files, tmp_path / "cache", config))
    written = sum(f.stat().st_size for f in (tmp_path / "cache").glob("**/*") if f.is_file())
    # what each scale generates, the pool and the checkpoints come later
    assert least < written / disk_of(config, files) < 1


def test_disk_depends_on_the_size_of_volumes_in_mm_not_in_voxels():
    def disk(shape, spacing, **changes):
        files = [TrainingFile("a", Path("a"), None, shape, spacing, 0, 1)]
        return disk_of(config_of(3, **({"zoom": (1, 1)} | changes)), files)  # voxels of 1 mm

    nothing = disk((0, 0, 0), (1.0, 1.0, 1.0))
    volume = disk((100, 200, 200), (1.0, 1.0, 1.0)) - nothing
    # image, sketch and what is generated, 5 bytes per voxel, at all scales
    assert volume == pytest.approx(5 * 100 * 200 * 200 * 8 / 7, abs=2)
    assert disk((200, 400, 400), (0.5, 0.5, 0.5)) - nothing == pytest.approx(volume, abs=2)
    assert disk((50, 200, 200), (1.0, 1.0, 1.0)) - nothing == pytest.approx(volume / 2, abs=2)
    more = disk((100, 200, 200), (1.0, 1.0, 1.0), variants=3) - nothing
    assert more == pytest.approx(3 * volume, abs=4)
    magnified = disk((100, 200, 200), (1.0, 1.0, 1.0), zoom=(0.5, 2)) - nothing
    assert magnified == pytest.approx(8 * volume, abs=16)
    # slices of 2 mm are resampled to voxels of 2 mm, however small these are within the slices
    assert disk((50, 200, 200), (2.0, 1.0, 1.0)) - nothing == pytest.approx(volume / 8, abs=2)
