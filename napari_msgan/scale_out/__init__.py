"""Tiles and exports on the workers of a Dask cluster.

`dask.distributed` is imported only when a cluster is requested. Only paths, numbers, strings, bytes
and tuples of these travel between this process and the workers.
"""

from napari_msgan.scale_out.blocks import filled_by
from napari_msgan.scale_out.cluster import Cluster, joined_cluster, open_cluster
from napari_msgan.scale_out.tiles import on_cluster

__all__ = ["Cluster", "filled_by", "joined_cluster", "on_cluster", "open_cluster"]
