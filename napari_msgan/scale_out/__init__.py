"""Tiles and exports on the workers of a Dask cluster.

`dask.distributed` is imported when a cluster is asked for. Between this process and the workers
travel paths, numbers, strings, bytes and tuples of these.
"""

from napari_msgan.scale_out.blocks import filled_by
from napari_msgan.scale_out.cluster import Cluster, joined_cluster, open_cluster
from napari_msgan.scale_out.tiles import on_cluster

__all__ = ["Cluster", "filled_by", "joined_cluster", "on_cluster", "open_cluster"]
