import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from napari_msgan.config import ModelSpec
from napari_msgan.errors import ModelError
from napari_msgan.megan_import import import_megan
from napari_msgan.model import (
    MODELS_VARIABLE,
    bundled_folder,
    find_by_identity,
    list_models,
    load_folder,
    load_model,
    read_spec,
    save_weights,
)
from tests.megan import write_checkpoints
from tests.models import write_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "small")


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(folder, change):
    import hashlib

    path = folder / "scale_1.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    spec = json.loads((folder / "model.json").read_text())
    spec["scales"][1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(spec))


def test_untouched_folder_loads_with_the_halo_of_its_layers(folder):
    model = load_folder(folder)
    assert [model.halo(scale) for scale in range(4)] == [(0, 0), (4, 4), (4, 4), (4, 4)]
    assert model.halo(7) == (4, 4)
    first, second, last = model.generators
    assert [model.generator(scale) for scale in range(5)] == [first, second, last, last, last]


def test_beyond_the_last_trained_scale_its_factor_goes_on(original):
    model = load_folder(original)
    factors = [(2, 2), (3, 2), (4, 2)]
    scales = tuple(
        scale.model_copy(update={"factor": factor})
        for scale, factor in zip(model.spec.scales, factors, strict=True)
    )
    model = replace(model, spec=model.spec.model_copy(update={"scales": scales}))
    assert [model.factor(scale) for scale in range(5)] == [*factors, (4, 2), (4, 2)]


def test_weights_that_are_only_rewritten_still_load(folder):
    replace_weights(folder, lambda weights: None)
    load_folder(folder)


def test_altered_file_is_refused(folder):
    path = folder / "scale_1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="altered or damaged"):
        load_folder(folder)


def test_missing_file_is_refused(folder):
    (folder / "scale_2.safetensors").unlink()
    with pytest.raises(ModelError, match="incomplete"):
        load_folder(folder)


def test_unknown_schema_version_is_refused(folder):
    edit(folder, schema_version=99)
    with pytest.raises(ModelError, match="schema version 99"):
        load_folder(folder)


def test_misspelt_field_is_refused(folder):
    edit(folder, windows=[0, 1])
    with pytest.raises(ModelError, match="windows"):
        load_folder(folder)


def test_wrong_shape_is_refused(folder):
    replace_weights(folder, lambda w: w.update({"head.bias": torch.zeros(7)}))
    with pytest.raises(ModelError, match=r"'head.bias' has shape \(7,\)"):
        load_folder(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(folder, value):
    replace_weights(folder, lambda w: w["head.bias"].fill_(value))
    with pytest.raises(ModelError, match="not finite"):
        load_folder(folder)


def test_weights_that_are_no_floats_are_refused(folder):
    replace_weights(folder, lambda w: w.update({"head.bias": w["head.bias"].to(torch.int8)}))
    with pytest.raises(ModelError, match=r"'head\.bias' is torch\.int8, weights are floats"):
        load_folder(folder)


def test_missing_and_unknown_weights_are_refused(folder):
    replace_weights(folder, lambda w: w.update({"extra": torch.zeros(1)}))
    with pytest.raises(ModelError, match="does not know: 'extra'"):
        load_folder(folder)
    replace_weights(folder, lambda w: (w.pop("extra"), w.pop("head.bias")))
    with pytest.raises(ModelError, match=r"lacks the weights 'head.bias'"):
        load_folder(folder)


def test_pickle_in_place_of_safetensors_is_never_unpickled(folder, tmp_path):
    import hashlib

    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (trap.touch, ())

    path = folder / "scale_1.safetensors"
    pickled = tmp_path / "weights.pth"
    torch.save({"head.bias": Trap()}, pickled)
    torch.load(pickled, weights_only=False)
    assert trap.exists()  # the trap works where code is unpickled
    trap.unlink()
    shutil.copy(pickled, path)
    spec = json.loads((folder / "model.json").read_text())
    spec["scales"][1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_folder(folder)
    assert not trap.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": ["x", "y"]},
        {"window": [5, 5]},
        {"window": [0, 70000]},
        {"window": [-1, 1000]},
        {"window": [0.5, 1000]},
        {"tile_shape": [33, 33]},
        {"chunk_shape": [16]},
        {"kind": "physical"},
        {"name": "../evil"},
    ],
    ids=str,
)
def test_description_that_does_not_fit_together_is_refused(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ModelError, match=r"model\.json"):
        read_spec(folder)


def test_file_name_with_a_path_is_refused(folder):
    spec = json.loads((folder / "model.json").read_text())
    spec["scales"][0]["file"] = "../scale_0.safetensors"
    (folder / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match="file"):
        read_spec(folder)


def test_unknown_name_lists_the_known_ones(original, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(original.parent))
    loaded = load_model("small")
    assert loaded.spec.name == "small"
    assert load_model(loaded) is loaded
    with pytest.raises(ModelError, match=r"the models here are .*small"):
        load_model("nothing")


def test_damaged_model_is_listed_with_its_problem(folder, monkeypatch):
    edit(folder, schema_version=2)
    monkeypatch.setenv(MODELS_VARIABLE, str(folder.parent))
    (entry,) = [e for e in list_models() if e.origin == "user"]
    assert entry.spec is None
    assert "schema version 2" in (entry.problem or "")


def test_identity_ignores_the_title_and_notices_weights(folder, original):
    before = read_spec(folder)
    edit(folder, title="Another title")
    assert read_spec(folder).identity == before.identity
    replace_weights(folder, lambda w: w["head.bias"].add_(1))
    assert read_spec(folder).identity != before.identity
    assert find_by_identity(before.identity, str(original)) == original
    with pytest.raises(ModelError, match="Copy its folder there"):
        find_by_identity("0" * 64)


def test_identity_of_a_model_that_does_not_say_how_it_upsamples_is_as_before(folder):
    content = json.loads((folder / "model.json").read_text())
    before = ModelSpec.model_validate(content)
    network = content["scales"][0]["network"]
    assert network.pop("upsampling") == "nearest"
    assert ModelSpec.model_validate(content) == before
    dumped = before.model_dump(mode="json", exclude={"title", "licence"})
    del dumped["scales"][0]["network"]["upsampling"], dumped["sketch"]["given"], dumped["noise"]
    as_before = hashlib.sha256(json.dumps(dumped, sort_keys=True).encode()).hexdigest()
    assert before.identity == as_before
    network["upsampling"] = "linear"
    assert ModelSpec.model_validate(content).identity != as_before


def test_the_random_part_of_a_model_is_its_noise(folder):
    content = json.loads((folder / "model.json").read_text())
    plain = ModelSpec.model_validate(content)
    with pytest.raises(ValueError, match=r"stochastic is False, but noise is 0.01"):
        ModelSpec.model_validate(content | {"noise": 0.01})
    with pytest.raises(ValueError, match=r"stochastic is True, but noise is 0"):
        ModelSpec.model_validate(content | {"stochastic": True})
    noisy = ModelSpec.model_validate(content | {"stochastic": True, "noise": 0.01})
    louder = ModelSpec.model_validate(content | {"stochastic": True, "noise": 0.02})
    assert len({spec.identity for spec in (plain, noisy, louder)}) == 3


def test_scales_whose_factors_do_not_lead_to_their_voxels_are_refused(folder):
    content = json.loads((folder / "model.json").read_text())
    content["scales"][1]["factor"] = content["scales"][0]["factor"] = [2, 1]
    with pytest.raises(ValidationError, match="must make the last axis finer"):
        ModelSpec.model_validate(content)
    content = read_spec(bundled_folder() / "thorax-ct").model_dump()
    ModelSpec.model_validate(content)
    content["scales"][2]["spacing_mm"] = (2.0, 2.0, 2.0)
    with pytest.raises(ValidationError, match="do not make those of"):
        ModelSpec.model_validate(content)


def test_bundled_models_load_and_are_small():
    folders = [p.parent for p in bundled_folder().glob("*/model.json")]
    assert {f.name for f in folders} >= {"brain-mri", "chest-xray", "thorax-ct"}
    for folder in folders:
        load_folder(folder)
        assert sum(p.stat().st_size for p in folder.iterdir()) < 20e6
        assert (folder / "README.md").is_file()
        assert (folder / "preview.png").is_file()


def test_saved_weights_are_float16_and_hashed(tmp_path, original):
    generator = load_folder(original).generators[1]
    sha256 = save_weights(generator, tmp_path / "w.safetensors")
    assert sha256 == read_spec(original).scales[1].sha256
    assert load_file(tmp_path / "w.safetensors")["head.bias"].dtype == torch.float16


def test_weights_beyond_float16_are_kept_as_they_are(tmp_path, original):
    generator = load_folder(original).generators[1]
    generator.head.bias.fill_(1e5)
    save_weights(generator, tmp_path / "w.safetensors")
    saved = load_file(tmp_path / "w.safetensors")
    assert saved["head.bias"].unique().tolist() == [1e5]
    assert saved["head.weight"].dtype == torch.float16


@pytest.mark.parametrize("name", ["Bad Name", "-x", "x" * 65, ""])
def test_a_name_that_is_no_folder_name_everywhere_is_refused(folder, name):
    edit(folder, name=name)
    with pytest.raises(ModelError, match=r"name: a model's short name has .* got") as caught:
        read_spec(folder)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.update(exact=True), "exact is True, but the networks .* not exact"),
        (lambda spec: spec["scales"][1].update(factor=[1, 2, 2]), r"needs the factor \(2, 2, 2\)"),
        (lambda spec: spec["scales"].reverse(), "cannot have a network of type megan_patch"),
    ],
    ids=["exact", "factor", "order"],
)
def test_imported_model_that_does_not_fit_together_is_refused(tmp_path, change, said):
    folder = tmp_path / "model"
    import_megan(write_checkpoints(tmp_path / "theirs", widths=(1, 1)), folder)
    spec = json.loads((folder / "model.json").read_text())
    change(spec)
    if spec["scales"][1]["factor"] != spec["scales"][0]["factor"]:
        spec["scales"][0]["factor"] = spec["scales"][1]["factor"]
    (folder / "model.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match=said):
        read_spec(folder)


def test_exact_networks_are_not_called_inexact(folder):
    edit(folder, exact=False)
    with pytest.raises(
        ModelError, match="exact is False, but the networks of this model are exact"
    ):
        read_spec(folder)


def test_a_folder_of_images_hides_no_model_of_its_name(original, tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(original.parent))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert load_model("small").folder == original
    with pytest.raises(ModelError, match=r"small is not a model folder: it has no model\.json"):
        load_model(tmp_path / "small")
