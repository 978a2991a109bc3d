"""Known vulnerabilities of what is installed: ``python tools/dependency_audit.py``.

Runs pip-audit in the current environment. A vulnerability is an error. Packages that the index says
nothing about are counted aloud: no answer is not a clean bill of health.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def summary(report: dict[str, Any]) -> tuple[list[str], int, int]:
    """Lines about vulnerable packages, how many were audited, how many have no answer."""
    audited = [each for each in report["dependencies"] if "skip_reason" not in each]
    found = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in "
        f"{', '.join(hole['fix_versions']) or 'no version yet'}"
        for each in audited
        for hole in each["vulns"]
    ]
    return found, len(audited), len(report["dependencies"]) - len(audited)


def main() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"],
        capture_output=True,
        text=True,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        # No network, no index: say so, and let the rest of the checks go on.
        print(f"NOT AUDITED: pip-audit gave no answer ({done.stderr.strip()[-300:]})")
        return
    found, audited, unknown = summary(report)
    print("\n".join(found) or "no known vulnerability", f"in {audited} packages")
    if unknown:
        print(f"NOT AUDITED: {unknown} packages, the index has no answer for them")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
