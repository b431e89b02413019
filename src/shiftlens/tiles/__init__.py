"""Tiled inference: how far it is from the whole image's output, why, and how to make it exact."""
