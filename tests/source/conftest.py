import pytest

from napari_msgan.model import read_spec
from tests.models import write_model


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    return read_spec(write_model(tmp_path_factory.mktemp("m") / "flat", n_scales=4))


@pytest.fixture(scope="module")
def physical(tmp_path_factory):
    return read_spec(write_model(tmp_path_factory.mktemp("m") / "solid", ndim=3, n_scales=4))
