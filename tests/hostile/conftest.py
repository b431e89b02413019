"""What the tests of hostile files share."""

from __future__ import annotations

import pytest

from hostile.commands import Ground, lay_out
from hostile.corpus_runs import WHERE
from hostile.corpus_zarr import WHERE as RESULTS
from made_once import once


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    laid = Ground.at(once(tmp_path_factory, "ground", lay_out))
    WHERE["run"] = laid.run
    RESULTS["features"], RESULTS["inspection"] = laid.features, laid.inspection
    return laid
