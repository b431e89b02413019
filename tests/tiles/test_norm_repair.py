"""Norms over the whole map become batch renorm, learn the original's output, and tile as other local layers do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.cli.app import main
from shiftlens.errors import NoEffectWarning
from shiftlens.surgery import distill, reestimate
from tiles.planted_causes import TwoLevels, images, model, shares


def test_batch_renorm_in_training_gives_what_it_gives_in_inference() -> None:
    torch.manual_seed(0)
    norm, plain = sl.nn.BatchRenorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(8, 3, 6, 6) * torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1) + 1
    for each in (norm, plain):
        nn.init.constant_(each.weight, 2.0)
        nn.init.constant_(each.bias, 0.5)
    wanted = norm.eval()(x)  # with the statistics from before the step
    torch.testing.assert_close(norm.train()(x), wanted, rtol=1e-4, atol=1e-4)
    plain.train()(x)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    far = 100 * x + 500  # beyond the limits, the batch's own statistics keep it small
    assert float(norm(far).detach().abs().max()) < 2 * (3 * 5 + 5) + 1


def test_norms_over_the_whole_map_are_replaced_and_others_stay() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True),
    )  # fmt: skip
    fixed, edits = sl.repair(net, norm="batch-renorm", size=16)
    assert [edit.path for edit in edits] == ["1", "2", "3", "4"]
    assert str(edits[1]) == "2: norm GroupNorm -> batch-renorm"
    assert torch.equal(fixed[1].weight, net[1].weight)
    assert [type(part).__name__ for part in fixed[5:]] == ["BatchNorm2d", "InstanceNorm2d"]
    _, left = sl.repair(net, norm="batch-renorm", size=16, only="InstanceNorm2d")
    assert [edit.path for edit in left] == ["1", "3"]
    with pytest.warns(NoEffectWarning, match="no layer that was asked for reads the whole map"):
        sl.repair(nn.Sequential(nn.Conv2d(1, 1, 3)), norm="batch-renorm", size=16)
    with pytest.raises(sl.InputError, match="did you mean"):
        sl.repair(net, norm="batchrenorm")


def test_a_repaired_net_has_no_norm_left_among_its_causes() -> None:
    wanted, pictures = model(norm="instance"), images(6)
    assert shares(sl.tile_report(wanted, images(2), tile=24))["norm"] > 0.1
    fixed, _ = sl.repair(wanted, norm="batch-renorm")
    measured, _ = reestimate(fixed, pictures)
    tuned, facts = distill(measured, wanted, pictures, epochs=12, lr=3e-3, batch=3)
    assert facts.losses[-1] < 0.5 * facts.losses[0]
    report = sl.tile_report(tuned, images(2), tile=24)
    assert set(shares(report)) == {"context"}
    assert (report.exact, report.passes) == (True, 1)
    with pytest.raises(sl.InputError, match=r"gives \[3, 1, 64, 64\], planted \[3, 3, 64, 64\]"):
        distill(sl.wrap(nn.Conv2d(1, 1, 1), mean=0, std=1), wanted, pictures, batch=3)
    with pytest.raises(sl.InputError, match="epochs"):
        distill(tuned, wanted, pictures, epochs=0)


def instance_net() -> nn.Module:
    torch.manual_seed(0)
    return TwoLevels(norm="instance")


def test_the_command_measures_distills_and_writes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = tmp_path / "net.py", tmp_path / "run"
    code.write_text("from tiles.test_norm_repair import instance_net\n")
    net = ["repair", "--model", f"{code}:instance_net", "--mean", "0.5", "--std", "0.25", "--norm", "batch-renorm"]
    assert main([*net, "--out", str(out)]) == 2
    assert "give --data" in capsys.readouterr().err
    data = ["--data", "digits-scenes", "--limit", "4", "--distill-epochs", "1"]
    assert main([*net, *data, "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in said["healed"]] == ["batch norm", "distillation"]
    assert said["before"] is None
    again = sl.load_model(out, code=code)
    assert [
        part.running_mean.abs().sum() > 0 for part in again.module.modules() if isinstance(part, sl.nn.BatchRenorm2d)
    ] == [True] * 3
    assert np.isfinite(said["healed"][1]["losses"]).all()
