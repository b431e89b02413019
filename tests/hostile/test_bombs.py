"""What asks for more memory than there is gets none: held by the system's own limit, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile import bombs

pytestmark = pytest.mark.timeout(300)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are as wanted on Linux only")
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    path = os.pathsep.join([*(str(Path(p).resolve()) for p in sys.path if p), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, bombs.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == {}, json.dumps(found["wrong"], indent=1)
    assert found["n"] >= 25
    assert found["taken_kb"] < 400_000
