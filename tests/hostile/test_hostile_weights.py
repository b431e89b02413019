"""The reader of weights on every hostile file of weights, and every command on some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hostile.commands import WEIGHTS as COMMANDS
from hostile.commands import Ground
from hostile.corpus_weights import WEIGHTS
from hostile.machinery import assert_calm, for_each, read_by_all, run, run_one
from hostile.readers import WEIGHT_FILES

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(WEIGHTS[name], tmp_path, WEIGHT_FILES, ground)


@for_each(COMMANDS, WEIGHTS)
def test_weights_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(WEIGHTS[name], tmp_path, command, COMMANDS[command], ground)


def test_a_file_does_not_decide_how_large_a_librarys_net_is(tmp_path: Path) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    tensors = dict(shufflenet_v2_x0_5(weights=None).state_dict())
    tensors["fc.weight"] = torch.zeros(1, 1).expand(10**9, 1024)
    tensors["fc.bias"] = torch.zeros(1).expand(10**9)
    torch.save(tensors, tmp_path / "w.pt")
    found = run("kernels", "--model", "torchvision:shufflenet_v2_x0_5", "--weights", str(tmp_path / "w.pt"))
    assert_calm(found)
    assert "of another shape (first: fc.weight, [1000, 1024] in the net, [1000000000, 1024] in the file)" in found.line
