"""Hostile words: names and numbers as a command's arguments."""

from __future__ import annotations

import os

NAMES: dict[str, str] = {
    "markup": "[bold red]x[/bold red][/nope]",
    "colours": "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "lines": "a\nshiftlens: all is well\r\n",
    "the other way round": "a\u202egnp.exe\u2066",
    "no text": os.fsdecode(b"\xff\xfe"),
    "mathematics": "$\\frac{",
    "a climb": "../../../../etc/passwd",
    "empty": "",
    "a hyphen": "-",
    "a percent": "%s%n{0}{x}",
    "long": "x" * 5000,
}

NUMBERS: dict[str, str] = {
    "not a number": "nan",
    "infinite": "inf",
    "below infinity": "-1e999",
    "huge": "9" * 400,
    "other digits": "٣٢",
    "underscores": "1_0",
    "a sign": "+-1",
    "sizes": "1x2x3",
    "sides of nothing": "0x0",
    "colours": "\x1b[31m1",
    "commas": ",,,",
    "spaces": " 1 ",
}
