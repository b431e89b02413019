from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftlens.errors import InputError
from shiftlens.indexing import FILL_RULES, OUTSIDE, RULES, source_index

NUMPY_MODES = {"zeros": "constant", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric"}
NUMPY_MODES["circular"] = "wrap"


@given(n=st.integers(2, 9), before=st.integers(0, 30), after=st.integers(0, 30), rule=st.sampled_from(sorted(RULES)))
def test_every_rule_is_numpys_pad(n: int, before: int, after: int, rule: str) -> None:
    values = np.arange(100, 100 + n)
    got = source_index(np.arange(-before, n + after), n, rule)
    seen = np.where(got == OUTSIDE, 0, values[got])
    assert seen.tolist() == np.pad(values, (before, after), mode=NUMPY_MODES[rule]).tolist()


def test_example_of_the_methods_table() -> None:
    assert "".join("ABCDEF"[i] for i in source_index(np.arange(-3, 9), 6, "symmetric")) == "CBAABCDEFFED"
    assert "".join("ABCDEF"[i] for i in source_index(np.arange(-3, 9), 6, "reflect")) == "DCBABCDEFEDC"


def test_one_pixel_axis() -> None:
    assert source_index(np.arange(-2, 3), 1, "symmetric").tolist() == [0] * 5
    assert source_index(np.arange(-2, 3), 1, "zeros").tolist() == [OUTSIDE, OUTSIDE, 0, OUTSIDE, OUTSIDE]
    with pytest.raises(InputError, match="reflect needs at least 2 positions along an axis, got 1"):
        source_index(np.arange(3), 1, "reflect")


def test_bad_requests_are_named() -> None:
    with pytest.raises(InputError, match="unknown index rule 'mirror'; expected one of zeros, replicate"):
        source_index(np.arange(3), 3, "mirror")
    with pytest.raises(InputError, match="at least 1 position, got 0"):
        source_index(np.arange(3), 0, "zeros")


def test_every_fill_rule_has_an_index_rule() -> None:
    assert set(FILL_RULES.values()) == set(RULES) - {"zeros"}
