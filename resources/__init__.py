"""Files that come with the package: bundled models, samples and icons.

Read them with ``importlib.resources.files("napari_msgan.resources")``.
"""
