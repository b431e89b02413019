"""Estimates to findings."""
