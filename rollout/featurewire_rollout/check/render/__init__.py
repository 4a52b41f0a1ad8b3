"""The report of a check as JSON for programs, and as text and a page for people."""

from featurewire_rollout.check.render.json import to_json
from featurewire_rollout.check.render.page import to_html
from featurewire_rollout.check.render.text import to_text

__all__ = ["to_html", "to_json", "to_text"]
