"""Computation shared across shifts: what the windows of an image have in common is computed once."""
