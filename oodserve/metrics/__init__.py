"""How well a score separates in-distribution from out-of-distribution images.

- `detection`: AUROC, average precision at any base rate, and both readings of "FPR95".
- `selective`: risk and coverage of a classifier that may decline, and what happens at tau.
- `bootstrap`: intervals.

Scores are larger for more in-distribution input. Equal scores are one group: no threshold splits
them, so no metric depends on the order of the rows.
"""

from __future__ import annotations

from oodserve.metrics.bootstrap import Samples as Samples
from oodserve.metrics.bootstrap import Statistic as Statistic
from oodserve.metrics.bootstrap import Statistics as Statistics
from oodserve.metrics.bootstrap import bootstrap_interval as bootstrap_interval
from oodserve.metrics.bootstrap import bootstrap_intervals as bootstrap_intervals
from oodserve.metrics.detection import OodMetrics as OodMetrics
from oodserve.metrics.detection import accuracy as accuracy
from oodserve.metrics.detection import aupr as aupr
from oodserve.metrics.detection import auroc as auroc
from oodserve.metrics.detection import evaluate_ood as evaluate_ood
from oodserve.metrics.detection import fpr_at_95_tpr_ood as fpr_at_95_tpr_ood
from oodserve.metrics.detection import ood_miss_at_95_id as ood_miss_at_95_id
from oodserve.metrics.selective import OperatingPoint as OperatingPoint
from oodserve.metrics.selective import Rate as Rate
from oodserve.metrics.selective import RiskCoverage as RiskCoverage
from oodserve.metrics.selective import aurc as aurc
from oodserve.metrics.selective import operating_point as operating_point
from oodserve.metrics.selective import risk_coverage as risk_coverage
