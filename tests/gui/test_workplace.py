from __future__ import annotations

import numpy as np
import pytest

from napari_msgan._napari.workplace import HERE, LOCAL, REMOTE
from napari_msgan.errors import MsganError
from napari_msgan.pyramid import open_pyramid


def test_this_computer_is_the_first_choice(panel):
    where = panel.refine.workplace
    assert where.box.currentText() == HERE
    assert where.cluster is None
    assert not where.count.isVisible()
    assert not where.address.isVisible()
    assert "some seconds to start" in where.box.toolTip()


def test_choices_become_clusters_and_stay_chosen(panel, xray, generated):
    where = panel.refine.workplace
    where.box.setCurrentText(LOCAL)
    where.count.setValue(3)
    assert where.cluster == "local:3"
    assert not where.address.isVisibleTo(where)
    where.box.setCurrentText(REMOTE)
    assert not where.count.isVisibleTo(where)
    with pytest.raises(MsganError, match="no address"):
        _ = where.cluster
    where.address.setText(" tcp://node:8786 ")
    assert where.cluster == "tcp://node:8786"
    generated(xray)  # another store is opened
    assert where.cluster == "tcp://node:8786"


def test_address_without_a_scheduler_is_told(panel, xray, generated, finish, notes, monkeypatch):
    monkeypatch.setattr("napari_msgan.scale_out.cluster._CONNECT_S", 0.5)
    store = generated(xray)
    panel.refine.region.setCurrentText("Everything")
    panel.refine.workplace.box.setCurrentText(REMOTE)
    panel.refine_button.click()
    assert "no address" in notes[-1].message
    panel.refine.workplace.address.setText("tcp://127.0.0.1:9")
    panel.refine_button.click()
    finish()
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in panel.job.outcome
    assert store.refined_fraction(2) == 0


@pytest.mark.slow
def test_workers_of_a_local_cluster_make_the_pixels(panel, xray, generated, finish, tmp_path):
    from napari_msgan import refine

    store = generated(xray)
    panel.refine.region.setCurrentText("Everything")
    panel.refine.workplace.box.setCurrentText(LOCAL)
    panel.refine.workplace.count.setValue(1)
    panel.refine_button.click()
    finish(200)
    assert panel.job.outcome == "Refined."
    made = np.asarray(store.array(2)[...])
    with store.writing():
        store.clear(1, store.geometry.box_at(1, _whole(store)))
    assert (np.asarray(store.array(2)[...]) != made).any()
    refine(open_pyramid(store.path, writable=True), device="cpu")
    np.testing.assert_array_equal(np.asarray(store.array(2)[...]), made)


def _whole(store):
    from napari_msgan.geometry import Box

    return Box.of_shape(store.geometry.shape)
