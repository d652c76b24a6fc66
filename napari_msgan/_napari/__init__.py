"""The napari plugin; the only place that imports napari, magicgui or Qt."""
