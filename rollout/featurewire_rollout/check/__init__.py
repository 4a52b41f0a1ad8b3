"""Compare the vectors that two versions make of the same images, to learn if an index still fits.

with Client(target, model=m, label="stable") as a, Client(target, model=m, version=2) as b:
    report = compare(Source(client=a, name="stable"), Source(client=b, name="canary"), folder)
print(to_text(report))
sys.exit(report.exit_status)  # 0 pass, 1 fail, 3 inconclusive
"""

from featurewire_rollout.check.compare import compare, judge
from featurewire_rollout.check.config import CheckConfig
from featurewire_rollout.check.pairs import Pairs, Side
from featurewire_rollout.check.pull import CheckError, Source
from featurewire_rollout.check.render import to_html, to_json, to_text
from featurewire_rollout.check.report import Report
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.check.verdict import Verdict

__all__ = [
    "CheckConfig",
    "CheckError",
    "Pairs",
    "Report",
    "Side",
    "Source",
    "Thresholds",
    "Verdict",
    "compare",
    "judge",
    "to_html",
    "to_json",
    "to_text",
]
