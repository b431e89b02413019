"""Results on disk: locks, whole files, checksums."""
