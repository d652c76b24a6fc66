"""``napari-msgan info``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_msgan.cli._tables import lengths, megabytes, one_line, percent, print_table, shape_text
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.errors import StoreError
from napari_msgan.exporting import provenance
from napari_msgan.geometry import Box, level_of_scale
from napari_msgan.pyramid import is_store, open_pyramid
from napari_msgan.pyramid.metadata import USUAL_MACHINE

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from napari_msgan.pyramid import Fingerprint, PyramidStore


def info(arguments: Namespace) -> None:
    """Print the metadata of a store and how much of it is refined, or list the stores of napari."""
    if arguments.store is None:
        from napari_msgan._napari.stores import stores_folder

        _list_stores(stores_folder(), as_json=arguments.json)
        return
    store = open_pyramid(arguments.store)
    scales = [_scale(store, scale) for scale in range(store.n_scales)]
    if arguments.json:
        content = {"store": store.address, "notice": _notice(store), "scales": scales}
        print(json.dumps(content | store.info.model_dump(mode="json"), indent=2))
        return
    print_table(("", ""), _facts(store))
    print()
    unit = "mm" if store.geometry.unit == "millimeter" else "px"
    rows = [
        (
            str(scale["scale"]),
            str(scale["level"]),
            shape_text(scale["shape"]),
            lengths(scale["spacing"], unit),
            f"{scale['chunks_refined']} / {scale['chunks']}",
            percent(scale["refined_fraction"]),
            "-" if scale["sketch_density"] is None else percent(scale["sketch_density"]),
        )
        for scale in scales
    ]
    columns = ("scale", "level", "shape", "spacing", "chunks", "refined", "sketch density")
    print_table(columns, rows, numbers="scale level chunks refined")


def _list_stores(folder: Path, *, as_json: bool) -> None:
    """Print the stores in a folder and their sizes on disk."""
    listed = [_listed(path) for path in sorted(folder.glob("*.ome.zarr")) if is_store(path)]
    if as_json:
        print(json.dumps({"folder": str(folder), "stores": listed}, indent=2))
        return
    if not listed:
        print(f"There are no stores in {folder}, where napari puts the stores that it makes.")
        return
    rows = [
        (
            str(store["name"]),
            store["model_name"] or "cannot be used",
            shape_text(store["shape"]) if store["shape"] else "-",
            ", ".join(percent(share, 0) for share in store["refined_fractions"]),
            megabytes(store["bytes"]),
        )
        for store in listed
    ]
    print_table(("store", "model", "finest", "refined, by scale", "size"), rows, numbers="size")
    for store in listed:
        if store["problem"]:
            print(one_line(f"problem with {store['name']}: {store['problem']}"))
    total = megabytes(sum(store["bytes"] for store in listed))
    print(f"\n{total} in {folder}. Delete the folders that you do not need.")


def _listed(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = {
        "name": path.name,
        "bytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
        "model_name": None,
        "shape": None,
        "refined_fractions": [],
        "problem": None,
    }
    try:
        store = open_pyramid(path)
    except StoreError as error:
        return known | {"problem": str(error)}
    return known | {
        "model_name": store.info.model_name,
        "shape": store.geometry.shape,
        "refined_fractions": [store.refined_fraction(s) for s in range(store.n_scales)],
    }


def _scale(store: PyramidStore, scale: int) -> dict[str, Any]:
    refined, thresholds = store.refined_chunks(scale), store.info.sketch.thresholds
    return {
        "scale": scale,
        "level": level_of_scale(scale, store.n_scales),
        "shape": store.geometry.shape_at(scale),
        "spacing": store.geometry.spacing_at(scale),
        "chunks_refined": int(refined.sum()),
        "chunks": int(refined.size),
        "refined_fraction": store.refined_fraction(scale),
        "sketch_density": thresholds[scale].density if thresholds else None,
    }


def _notice(store: PyramidStore) -> str:
    whole = Box.of_shape(store.geometry.shape)
    return str(provenance(store, store.geometry.finest_scale, whole, "store")["notice"])


def _facts(store: PyramidStore) -> list[tuple[str, str]]:
    known, source = store.info, store.info.source
    mm = source.unit == "millimeter"
    spacing = lengths(source.to_affine().spacing, "mm") if mm else "no voxel size"
    kind = "sketch" if source.is_sketch else "image"
    named = f", {source.name}" if source.name else ""
    edited = ", its sketch drawn on" if known.sketch.edited else ""
    honest = f"scale {source.honest_scale}"
    if mm:
        honest += f" ({lengths(store.geometry.spacing_at(source.honest_scale), 'mm')})"
    facts = [
        ("store", store.address),
        ("model", f"{known.model_name}, hash {known.model_sha256[:12]}"),
        ("modality", f"{known.modality}, values {known.window[0]:g} to {known.window[1]:g}"),
        ("source", f"{kind} of {shape_text(source.shape)}, {spacing}{named}{edited}"),
        ("source hash", source.sha256[:12]),
        ("supports", f"{honest}; finer detail is invented"),
        ("seed", str(known.seed) if known.stochastic else f"{known.seed} (no random part)"),
        ("made with", _recipe(known.fingerprint)),
        ("written by", f"napari-msgan {known.version}"),
        ("synthetic", _notice(store)),
    ]
    if not known.exact:
        facts.append(("tiles", INEXACT_NOTE))
    if known.model_path is not None:
        facts.insert(2, ("model folder", known.model_path))
    return facts


def _recipe(made: Fingerprint | None) -> str:
    if made is None:
        return "nothing is made yet"
    machine = "" if made.machine == USUAL_MACHINE else f", {made.machine}"
    return f"{made.precision} on {made.gpu or made.device}, torch {made.torch}{machine}"
