"""A study of tiny nets on digits: a second a run."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "name": "tiny",
    "seeds": 2,
    "data": {"images": "digits", "train_limit": 120, "test_limit": 40},
    "training": {"epochs": 1, "dtype": "float32", "recipe": {"min_steps_per_epoch": 2}},
    "factors": {"padding": ["zeros", "circular"], "arch": "vgg6", "width": 2, "size": 16},
    "sweeps": {"black": {"max_shift": 4, "step": 4, "limit": 20}},
    "contrasts": [{"name": "near", "arm": "zeros", "against": "circular", "measure": "black.near", "claim": "padding"}],
    "claims": {
        "padding": {
            "title": "Zeros help",
            "source": "arXiv 0",
            "says": "They do.",
            "did": "A sweep.",
            "would_change": "More seeds.",
        }
    },
}
