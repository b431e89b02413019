"""Every Zarr result on disk: header, declared arrays, seals and checksums, locks, what may lie at a path."""
