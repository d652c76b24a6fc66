"""Speed and memory of the engine against the bare network and against peers; see `__main__`."""
