"""Arrays of a sweep to estimates with intervals; pure functions."""
