"""Symmetric padding against PyTorch's reflect: seconds forward and backward, in turns.

python benchmarks/padding.py --repeats 30 --out docs/benchmarks/padding.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import shiftlens as sl
from header import header, of_machine

SHAPES = ((32, 64, 32, 32), (32, 128, 16, 16), (8, 64, 112, 112))
WIDTHS = (1, 2, 3)


def seconds(pad: torch.nn.Module | None, width: int, x: Tensor) -> float:
    """One forward and one backward pass; `pad` None is PyTorch's reflect."""
    x = x.detach().requires_grad_(True)
    start = time.perf_counter()
    out = F.pad(x, (width,) * 4, mode="reflect") if pad is None else pad(x)
    out.backward(torch.ones_like(out))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/padding.json"))
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for shape in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).contiguous(memory_format=layout)
            for width in WIDTHS:
                ours = sl.nn.SymmetricPad2d(width)
                for pad in (None, ours):
                    seconds(pad, width, x)
                ratios = [seconds(ours, width, x) / seconds(None, width, x) for _ in range(args.repeats)]
                low, median, high = statistics.quantiles(ratios, n=4)
                rows.append(
                    {
                        "shape": list(shape),
                        "channels_last": layout is torch.channels_last,
                        "width": width,
                        "ratio": {"median": median, "lower_quartile": low, "upper_quartile": high},
                    }
                )
    result = header() | {"repeats": args.repeats, "rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Symmetric padding against PyTorch's reflect",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}; forward and backward, float32, {args.repeats} "
        "pairs in turns: median (quartiles) of symmetric's time over reflect's.",
        "",
        "| map | layout | " + " | ".join(f"width {width}" for width in WIDTHS) + " |",
        "|---|---|" + "---|" * len(WIDTHS),
    ]
    for first in range(0, len(rows), len(WIDTHS)):
        some = rows[first : first + len(WIDTHS)]
        cells = [
            f"{r['ratio']['median']:.2f} ({r['ratio']['lower_quartile']:.2f} to {r['ratio']['upper_quartile']:.2f})"
            for r in some
        ]
        layout_name = "channels last" if some[0]["channels_last"] else "contiguous"
        lines.append(f"| {' x '.join(map(str, some[0]['shape']))} | {layout_name} | {' | '.join(cells)} |")
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
