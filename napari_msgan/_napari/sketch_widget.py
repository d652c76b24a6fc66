"""*Edge sketch of an image*: a sketch that can be painted on and given back as the source."""

import napari.layers
import napari.types
import numpy as np
from magicgui import magic_factory

from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.to_layer import Placement
from napari_msgan.config import SketchSettings
from napari_msgan.sketch import lazy_sketch


@magic_factory(
    call_button="Make the sketch",
    image={"tooltip": "The image whose edges are found, at its own resolution."},
    density={
        "label": "Edges (% of voxels)",
        "widget_type": "FloatSlider",
        "min": 1.0,
        "max": 25.0,
        "tooltip": "How many voxels become edges at most. The bundled models were trained with 5\n"
        "to 9 % in 2-D and 9 to 14 % in 3-D; much more copies the image instead of sketching it.",
    },
)
def sketch_widget(image: napari.layers.Image, density: float = 9.0) -> napari.types.LayerDataTuple:
    """Return the sketch as a Labels layer: paint with label 255 for a strong edge, 0 erases."""
    volume = to_volume(image)
    usual = SketchSettings.of_ndim(len(volume.shape))
    ratio = usual.high_density / usual.low_density
    share = density / 100
    settings = SketchSettings(
        low_density=share, high_density=share * ratio, dilations=usual.dilations
    )
    sketch = lazy_sketch(volume.data, settings)
    edges = sketch[tuple(slice(0, n) for n in volume.shape)]
    placed = Placement.of_layer(image, volume).transform(volume.affine)
    options = {"name": f"{image.name} (sketch)", "opacity": 0.8, "blending": "additive", **placed}
    return (np.asarray(edges), options, "labels")
