"""The report as one page. Nothing is loaded from anywhere."""

from __future__ import annotations

import html

from featurewire_rollout.check.report import Report


def page(report: Report) -> str:
    return f"<!doctype html><title>check</title><pre>{html.escape(report.to_text())}</pre>"
