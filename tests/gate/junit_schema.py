"""What the schema `junit-10.xsd` of Jenkins' xUnit plugin allows, element by element, as facts.

https://github.com/jenkinsci/xunit-plugin, src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd
(MIT License, Copyright (c) 2014, Gregory Boissinot); the facts are written down here, the file itself is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

TIME = r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?"

RERUNS = {"rerunFailure", "rerunError", "flakyFailure", "flakyError"}

# Element: (attributes it must have, those it may have, elements within, whether text may stand in it).
ELEMENTS: dict[str, tuple[set[str], set[str], set[str], bool]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}, False),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        False,
    ),
    "properties": (set(), set(), {"property"}, False),
    "property": ({"name", "value"}, set(), set(), False),
    "testcase": (
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"} | RERUNS,
        False,
    ),
    "failure": (set(), {"type", "message"}, set(), True),
    "error": (set(), {"type", "message"}, set(), True),
    "skipped": (set(), {"type", "message"}, set(), True),
    "system-out": (set(), set(), set(), True),
    "system-err": (set(), set(), set(), True),
}


def faults(element: ET.Element) -> list[str]:
    """What is wrong in a document whose root this is."""
    if element.tag not in {"testsuites", "testsuite"}:
        return [f"{element.tag} as the root"]
    return list(_faults(element))


def _faults(element: ET.Element) -> Iterator[str]:
    required, allowed, within, text = ELEMENTS[element.tag]
    given = set(element.attrib)
    yield from (f"{element.tag} lacks {name}" for name in required - given)
    yield from (f"{element.tag} has {name}" for name in given - required - allowed)
    if "time" in given and element.tag != "testcase" and not re.fullmatch(TIME, element.attrib["time"]):
        yield f"{element.tag} has the time {element.attrib['time']}"
    pieces = [element.text, *(child.tail for child in element)]
    if not text and any(piece and piece.strip() for piece in pieces):
        yield f"text in {element.tag}"
    for child in element:
        if child.tag in within:
            yield from _faults(child)
        else:
            yield f"{child.tag} in {element.tag}"
