"""File > Save: layers of a store through the library's export, others as plain images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.layers import Image, Layer

from napari_msgan._napari.compare import is_comparison
from napari_msgan._napari.from_layer import labels_of, note_of, store_link, to_volume
from napari_msgan._napari.stores import shared_store
from napari_msgan.errors import MsganError, VolumeError
from napari_msgan.geometry import Box
from napari_msgan.io import write_volume
from napari_msgan.jobs import export


def _description_of(layer: Image) -> dict[str, Any]:
    """Return the description to save with a layer that shows no store: that of its own file.

    A slice or level of a result has the metadata of the result, and stays marked as synthetic.
    """
    note = note_of(layer)
    if note.get("role") in ("result", "box"):
        return {"content": "image", "synthetic": True}
    if note.get("role") == "sketch":
        return {"content": "sketch"}
    said: dict[str, Any] | None = note.get("description")
    return {"content": "image"} if said is None else said


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except MsganError as error:
        raise MsganError("\n".join([str(error), *getattr(error, "__notes__", ())])) from error


@_plain_errors()
def write_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer in the format given by the extension of its name.

    The finest scale is written as a whole; the panel offers scale, region and grid. napari asks
    before a file is replaced; a folder is never replaced.

    Raises
    ------
    MsganError
        Never a subclass: napari takes a ValueError, which most of ours are as well, for a writer
        that does not fit, and drops its message.
    """
    target, layer = Path(path), Layer.create(data, dict(attributes), "image")
    if is_comparison(layer):
        raise VolumeError(
            f"layer {layer.name!r} is a comparison: it is partly synthetic, and its grey values "
            "are mapped. Save the result and the source, or a screenshot (File > Save Screenshot)."
        )
    overwrite = target.is_file()
    link = store_link(layer)
    if link is None:
        description = _description_of(layer)
        write_volume(target, [to_volume(layer)], description=description, overwrite=overwrite)
    elif link.role == "sketch":
        description = {"content": "sketch", "store": link.path.name}
        write_volume(target, [to_volume(layer)], description=description, overwrite=overwrite)
    else:
        store = shared_store(link.path)
        if target.resolve() == store.path.resolve():
            raise MsganError(
                f"{target} is the store itself, which saves itself. Choose another name."
            )
        note = note_of(layer)
        scale, region = None, None
        if link.role == "box":
            scale = note["scale"]
            region = Box.parse(note["region"], store.geometry.axes)
        export(store, target, scale=scale, region=region, overwrite=overwrite)
    return [path]


@_plain_errors()
def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one labels layer with its position, in the smallest type that holds its numbers.

    Painted lines are a sketch, in which the largest label is the strongest edge.

    Raises
    ------
    MsganError
        As for `write_layer`.
    """
    target, layer = Path(path), Layer.create(data, dict(attributes), "labels")
    try:
        volume = to_volume(layer)
    except VolumeError as error:
        error.add_note(
            "Or save it under a name that ends in .tif, which does not keep its position."
        )
        raise
    labels, is_map = labels_of(layer)
    description = {"content": "labels" if is_map else "sketch"}
    volume = replace(volume, data=labels)
    write_volume(target, [volume], description=description, overwrite=target.is_file())
    return [path]
