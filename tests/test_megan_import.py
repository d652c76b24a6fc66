"""Checkpoints of the authors' layout become a model; anything else is refused."""

import copy
import os
import pickle
import shutil
import zipfile

import pytest
import torch

from napari_msgan.config import MeganLowResNetwork, MeganPatchNetwork
from napari_msgan.errors import ModelError
from napari_msgan.megan_import import check_torch, import_megan, read_checkpoint
from napari_msgan.model import load_folder, read_spec
from tests.megan import layout, random_weights, write_checkpoints


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "theirs")


def checkpoint(folder, part):
    return folder / f"Toy_{part}" / "NETG_best.pth"


def test_model_has_the_widths_and_the_very_weights_of_the_checkpoints(folder, tmp_path):
    spec = import_megan(folder, tmp_path / "model")
    assert [scale.network for scale in spec.scales] == [
        MeganLowResNetwork(width=2),
        MeganPatchNetwork(width=3),
        MeganPatchNetwork(width=2),
    ]
    model = load_folder(tmp_path / "model")
    assert model.spec == spec
    for part, generator in zip(("LR", "HR1", "HR2"), model.generators, strict=True):
        theirs = torch.load(checkpoint(folder, part), weights_only=True)
        ours = generator.state_dict()
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_model_says_what_it_is(folder, tmp_path):
    spec = import_megan(folder, tmp_path / "model")
    assert (spec.name, spec.title, spec.modality) == ("toy", "Toy", "unknown")
    assert (spec.window, spec.dtype, spec.exact) == ((-1, 1), "float32", False)
    assert spec.kind == "relative"
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Not exact" in card
    assert "| 1 | 64 | 3 | Toy_HR1 |" in card


def test_name_title_modality_and_window_can_be_chosen(folder, tmp_path):
    spec = import_megan(
        folder,
        tmp_path / "model",
        name="brain",
        title="Brain, T1",
        modality="MR",
        window=(0, 4095),
    )
    assert read_spec(tmp_path / "model") == spec
    assert (spec.name, spec.title, spec.modality) == ("brain", "Brain, T1", "MR")
    assert spec.window == (0, 4095)


@pytest.mark.parametrize("n_scales", [2, 4])
def test_number_of_scales_is_found(tmp_path, n_scales):
    folder = write_checkpoints(tmp_path / "theirs", widths=(1,) * n_scales)
    assert import_megan(folder, tmp_path / "model").n_scales == n_scales


def test_half_precision_and_old_files_are_read(folder, tmp_path):
    path = checkpoint(folder, "HR1")
    weights = {k: v.half() for k, v in random_weights(2, low_res=False, seed=3).items()}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    import_megan(folder, tmp_path / "model")
    state = load_folder(tmp_path / "model").generators[1].state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in weights.items())


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (self.sprung,)


def change(path, **changes):
    weights = torch.load(path, weights_only=True)
    for name, value in changes.items():
        weights["model." + name.replace("_", ".")] = value
    torch.save(weights, path)


def lose_a_key(path):
    weights = torch.load(path, weights_only=True)
    del weights["model.9.conv_block.4.bias"]
    torch.save(weights, path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


REFUSED = {
    "text": (lambda p: p.write_text("hello\nworld"), "not saved by torch"),
    "empty file": (lambda p: p.write_bytes(b""), "not saved by torch"),
    "damaged": (truncate, "is damaged"),
    "list": (lambda p: torch.save([torch.zeros(3)], p), "seen: a list"),
    "empty dict": (lambda p: torch.save({}, p), "without model.0.weight"),
    "whole training state": (
        lambda p: torch.save({"epoch": 3, "net": {"a": torch.zeros(1)}}, p),
        r"seen: 2 entries \('epoch', ...\), one of them a int",
    ),
    "other keys": (
        lambda p: torch.save({"features.weight": torch.zeros(2)}, p),
        r"expected model.0.weight of shape \(width, 2, 3, 3, 3\).*seen: .*'features.weight'",
    ),
    "low-resolution generator in its place": (
        lambda p: torch.save(random_weights(2, low_res=True, seed=0), p),
        r"high-resolution generator, seen: shape \(2, 1, 3, 3, 3\)",
    ),
    "scale convolution too many": (
        lambda p: torch.save(
            {
                **random_weights(2, low_res=True, seed=0),
                "model.0.weight": torch.zeros(2, 2, 3, 3, 3),
            },
            p,
        ),
        "lacks the weights 'model.10.conv_block.0.bias'",
    ),
    "missing key": (lose_a_key, "lacks the weights 'model.9.conv_block.4.bias'"),
    "key too many": (lambda p: change(p, **{"99_weight": torch.zeros(1)}), "'model.99.weight'"),
    "other shape": (
        lambda p: change(p, **{"21_weight": torch.zeros(1, 3, 5, 5, 5)}),
        r"'model.21.weight' has shape \(1, 3, 5, 5, 5\), its network needs \(1, 3, 7, 7, 7\)",
    ),
    "2-D": (lambda p: change(p, **{"0_weight": torch.zeros(3, 2, 3, 3)}), r"shape \(3, 2, 3, 3\)"),
    "too wide": (lambda p: change(p, **{"0_weight": torch.zeros(257, 2, 3, 3, 3)}), "1 to 256"),
    "number": (lambda p: change(p, **{"0_weight": torch.zeros(())}), r"seen: shape \(\)"),
    "beyond float32": (
        lambda p: change(p, **{"0_bias": torch.full((3,), 1e300, dtype=torch.float64)}),
        "has values that float32 does not hold",
    ),
    "not finite": (lambda p: change(p, **{"0_bias": torch.full((3,), torch.nan)}), "not finite"),
    "integers": (lambda p: change(p, **{"0_bias": torch.zeros(3, dtype=torch.int)}), "are floats"),
    "sparse": (
        lambda p: change(p, **{"0_bias": torch.zeros(3).to_sparse()}),
        "one of them a Tensor",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_file_with_other_content_is_refused_and_nothing_is_written(folder, tmp_path, case):
    make, said = REFUSED[case]
    make(checkpoint(folder, "HR1"))
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ModelError, match=said) as error:
        import_megan(folder, tmp_path / "model")
    assert str(checkpoint(folder, "HR1")) in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_code_in_a_checkpoint_is_never_run(folder, tmp_path, kind):
    sprung, path = tmp_path / "sprung", checkpoint(folder, "HR1")
    state = {"model.0.weight": Trap(str(sprung))}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
        torch.load(path, weights_only=False)
        assert sprung.is_dir()  # the trap works where code is unpickled
        sprung.rmdir()
    with pytest.raises(ModelError, match="Nothing in it was run"):
        import_megan(folder, tmp_path / "model")
    assert not sprung.exists()
    assert not (tmp_path / "model").exists()


def test_missing_scale_is_refused(folder, tmp_path):
    shutil.rmtree(folder / "Toy_HR1")
    with pytest.raises(ModelError, match=r"lacks Toy_HR1/NETG_best.pth.*seen: Toy_HR2"):
        import_megan(folder, tmp_path / "model")
    shutil.rmtree(folder / "Toy_HR2")
    with pytest.raises(ModelError, match=r"lacks Toy_HR1/NETG_best.pth"):
        import_megan(folder, tmp_path / "model")
    shutil.rmtree(folder / "Toy_LR")
    with pytest.raises(ModelError, match=r"no low-resolution checkpoint.*seen: no such file"):
        import_megan(folder, tmp_path / "model")


def test_two_experiments_are_refused(folder, tmp_path):
    write_checkpoints(folder, widths=(1, 1), experiment="Other")
    with pytest.raises(ModelError, match=r"holds several: .*Other_LR.*Toy_LR"):
        import_megan(folder, tmp_path / "model")


def test_folder_that_is_none_and_out_that_exists_are_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        import_megan(tmp_path / "nothing", tmp_path / "model")
    with pytest.raises(ModelError, match="exists already"):
        import_megan(folder, folder)
    with pytest.raises(ModelError, match=r"does not exist\. Make it first"):
        import_megan(folder, tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "../evil"}, "name"),
        ({"window": (1, 1)}, "from low to high"),
        ({"window": (0, float("nan"))}, "window"),
        ({"window": (float("-inf"), 0)}, "window"),
    ],
    ids=str,
)
def test_options_that_describe_no_model_are_refused(folder, tmp_path, options, said):
    with pytest.raises(ModelError, match=said):
        import_megan(folder, tmp_path / "model", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("version", ["2.9.1", "1.13.1+cpu", "2.5.0a0"])
def test_torch_that_can_be_tricked_is_refused(version):
    with pytest.raises(ModelError, match=r"torch 2.10 or newer.*Update torch"):
        check_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0"])
def test_torch_from_2_10_on_is_accepted(version):
    check_torch(version)


def test_layout_of_these_tests_is_that_of_the_facts():
    low, high = layout(64, low_res=True), layout(64, low_res=False)
    assert low["model.24.weight"] == high["model.21.weight"] == (1, 64, 7, 7, 7)
    assert low["model.3.weight"] == (64, 64, 4, 4, 4)
    assert high["model.9.conv_block.4.weight"] == (256, 256, 3, 3, 3)
    assert high["model.15.weight"] == (256, 128, 4, 4, 4)


@pytest.mark.parametrize(
    "odd",
    [
        lambda w: torch.empty(w.shape, device="meta"),
        lambda w: torch.zeros(w.shape).to(torch.float8_e4m3fn),
        lambda w: torch.zeros(w.shape, dtype=torch.complex64),
        lambda w: torch.zeros(w.shape).to_sparse(),
        lambda w: torch.zeros(1).expand(2**40),
    ],
    ids=["meta", "float8", "complex", "sparse", "expanded"],
)
def test_tensors_of_odd_kinds_are_refused(tmp_path, odd):
    weights = random_weights(1, low_res=True, seed=0)
    weights["model.1.weight"] = odd(weights["model.1.weight"])
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"a\.pth: "):
        read_checkpoint(tmp_path / "a.pth", low_res=True)


@pytest.mark.parametrize("is_zip", [True, False], ids=["archive", "old format"])
def test_checkpoint_that_is_cut_anywhere_is_refused(tmp_path, is_zip):
    path = tmp_path / "a.pth"
    weights = random_weights(1, low_res=True, seed=0)
    torch.save(weights, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="Nothing in it was run"):
            read_checkpoint(path, low_res=True)


def test_archive_that_unpacks_to_more_than_it_is_is_refused_unread(folder, tmp_path, monkeypatch):
    path = checkpoint(folder, "HR1")
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as plain:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in plain.infolist():
                archive.writestr(part.filename, plain.read(part))
    assert torch.load(packed, weights_only=True).keys()  # torch would have read it
    packed.replace(path)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match="compressed parts, which torch never writes"):
        read_checkpoint(path, low_res=False)


def test_archive_whose_parts_overlap_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    torch.save(random_weights(1, low_res=True, seed=0), path)
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        for number in range(50):  # each tells of the same bytes
            again = copy.copy(largest)
            again.filename = f"archive/data/{1000 + number}"
            archive.filelist.append(again)
        archive._didModify = True
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match="may unpack to any size"):
        read_checkpoint(path, low_res=True)
