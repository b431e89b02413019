"""The pytest plugin: the fixture `shift_robustness`. It loads nothing of shiftlens until a test uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shiftlens.gate.check_result import CheckResult


@pytest.fixture
def shift_robustness(request: pytest.FixtureRequest) -> Callable[..., CheckResult]:
    """`shiftlens.assert_robust`; its seed is that of pytest-randomly where that is in use."""
    seed = request.config.getoption("randomly_seed", default=0)

    def assert_robust(model: Any, images: Any, **options: Any) -> CheckResult:
        __tracebackhide__ = True
        from shiftlens.gate import robustness

        return robustness.assert_robust(model, images, **({"seed": seed if isinstance(seed, int) else 0} | options))

    return assert_robust
