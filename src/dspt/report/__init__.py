"""Pages and figures from results: records in, HTML or image out, nothing is written to disk.

Importing this package costs nothing beyond the result schema: matplotlib and jinja2 are imported
when something is rendered.
"""

from __future__ import annotations

from dspt.report.audit import AuditPage, AuditSuspect, render_audit
from dspt.report.comparison import Gallery, Section, render_comparison
from dspt.report.run import render_run

__all__ = [
    "AuditPage",
    "AuditSuspect",
    "Gallery",
    "Section",
    "render_audit",
    "render_comparison",
    "render_run",
]
