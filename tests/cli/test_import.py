"""``napari-msgan import-megan``, and what the other commands say of such a model."""

import json

import numpy as np
import pytest
import tifffile

from napari_msgan.config import INEXACT_NOTE
from tests.cli.helpers import names_in
from tests.megan import write_checkpoints


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("theirs"), widths=(1, 1))


def test_imported_model_is_listed_and_generates_and_says_that_it_is_not_exact(
    cli, theirs, own_models, tmp_path
):
    out, store = own_models / "toy", tmp_path / "a.ome.zarr"
    ended = cli("import-megan", theirs, out, "--modality", "CT", "--window", "-1000", "600")
    assert (ended.code, ended.err) == (0, "")
    assert f"model 'toy', 2 scales; {INEXACT_NOTE}" in ended.out
    assert names_in(out) == [
        "README.md",
        "model.json",
        "scale_0.safetensors",
        "scale_1.safetensors",
    ]
    assert f"note on toy: {INEXACT_NOTE}" in cli("models").out
    listed = {entry["name"]: entry for entry in json.loads(cli("models", "--json").out)}
    assert listed["toy"]["spec"]["exact"] is False
    assert listed["toy"]["spec"]["window"] == [-1000, 600]
    assert "Not exact" in cli("models", "toy").out
    (out / "README.md").unlink()
    assert INEXACT_NOTE in cli("models", "toy").out

    sketch = np.where(np.random.default_rng(0).random((40, 36, 30)) < 0.1, 200, 0)
    tifffile.imwrite(tmp_path / "sketch.tif", sketch.astype(np.uint8))
    made = cli(
        *("generate", tmp_path / "sketch.tif", store, "--model", "toy"),
        *("--input-is-sketch", "--device", "cpu", "-q"),
    )
    assert made.code == 0, made.err
    assert "normalise each patch" in " ".join(cli("info", store).out.split())
    assert json.loads(cli("info", store, "--json").out)["exact"] is False
    saved = tmp_path / "saved.ome.tif"
    assert cli("export", store, saved, "-q").code == 0
    with tifffile.TiffFile(saved) as file:
        assert INEXACT_NOTE in file.pages.first.description or INEXACT_NOTE in file.ome_metadata


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_import_says_nothing(cli, theirs, tmp_path, quiet):
    ended = cli("import-megan", theirs, tmp_path / "model", *(["-q"] if quiet else []))
    assert ended.code == 0
    assert (ended.out == "") == quiet


def test_what_is_no_checkpoint_is_refused_in_one_line(cli, tmp_path):
    folder = write_checkpoints(tmp_path / "theirs", widths=(1, 1))
    (folder / "Toy_HR1" / "NETG_best.pth").write_text("hello")
    cli("import-megan", folder, tmp_path / "model").check_refused("Toy_HR1/NETG_best.pth: expected")
    assert names_in(tmp_path) == ["theirs"]
    cli("import-megan", tmp_path, tmp_path / "model").check_refused("no low-resolution checkpoint")
    cli("import-megan", folder, tmp_path / "model", "--window", "0", "x").check_refused("'x'")
