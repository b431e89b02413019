"""What the tests of hostile files share."""

from __future__ import annotations

import pytest

from hostile.commands import Ground, lay_out
from hostile.corpus_runs import WHERE


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    laid = lay_out(tmp_path_factory.mktemp("ground"))
    WHERE["run"] = laid.run
    return laid
