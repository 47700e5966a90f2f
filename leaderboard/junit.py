"""Writes JUnit XML, the form in which continuous integration takes the results of tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError


@dataclass(frozen=True)
class JunitCase:
    """One test of a report.

    Parameters
    ----------
    group
        What the tests are grouped by.
    name
        The name of the test.
    outcome
        `failure`, `skipped`, or None for a test that passes.
    message
        What was found.
    """

    group: str
    name: str
    outcome: str | None
    message: str


def write_junit(path: Path, suite: str, cases: Sequence[JunitCase], notes: Sequence[str]) -> None:
    """Write a report of one suite.

    Parameters
    ----------
    path
        The file.
    suite
        The name of the suite.
    cases
        Its tests. Their texts must be printable, since XML has no signs for control characters.
    notes
        Sentences that stand in the suite's output.

    Raises
    ------
    UserError
        Where the file cannot be written.
    """
    counts = {outcome: sum(one.outcome == outcome for one in cases) for outcome in ("failure", "skipped")}
    attributes = {"name": suite, "tests": str(len(cases)), "failures": str(counts["failure"]), "errors": "0"}
    attributes["skipped"] = str(counts["skipped"])
    root = ElementTree.Element("testsuites", attributes)
    element = ElementTree.SubElement(root, "testsuite", attributes)
    for one in cases:
        case = ElementTree.SubElement(element, "testcase", {"classname": one.group, "name": one.name, "time": "0"})
        if one.outcome:
            ElementTree.SubElement(case, one.outcome, {"message": one.message})
    ElementTree.SubElement(element, "system-out").text = "\n".join(notes)
    ElementTree.indent(root)
    try:
        write_atomically(path, ElementTree.tostring(root, "utf-8", xml_declaration=True))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --junit") from None
