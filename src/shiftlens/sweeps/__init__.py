"""The sweep: a model on a set of images under every shift of a grid, computed in chunks and kept in one Zarr group."""
