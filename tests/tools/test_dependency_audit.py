"""What pip-audit says is counted, not glossed over."""

from tools.dependency_audit import summary


def test_vulnerable_audited_and_unknown_packages_are_told_apart():
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]},
            {"name": "c", "version": "4", "vulns": [{"id": "CVE-2", "fix_versions": []}]},
            {"name": "d", "skip_reason": "not found"},
        ]
    }
    assert summary(report) == (
        ["b 2: CVE-1, mended in 3", "c 4: CVE-2, mended in no version yet"],
        3,
        1,
    )
