"""Sweep -> numbers with intervals: question A of the contract. Pure; `summary` calls all of them."""
