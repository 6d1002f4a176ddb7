"""Prints the number of tests in JUnit XML files, by file and in total: count_tests.py FOLDER."""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

total: "Counter[str]" = Counter()
for path in sorted(Path(sys.argv[1]).glob("*.xml")):
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))  # noqa: S314  pytest wrote it
    found = Counter(
        {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    )
    total += found
    print(
        f"{path.stem:16} {found['tests']:5} tests, {found['failures'] + found['errors']} failed, "
        f"{found['skipped']} skipped"
    )
print(f"{total['tests']} tests, {total['failures'] + total['errors']} failed, {total['skipped']} skipped")
