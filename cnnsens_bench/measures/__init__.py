"""Measures of predictions: arrays in, numbers out, and the table of measures that leaderboard and summary show.

`intervals` has shares with intervals and the bootstrap, `finite` has intervals for these very images, and `paired` says
which entrants a table tells apart. `predictions` has measures of predictions and of error rates, and `skill` says how
well a score predicts label changes. `spec` defines what a measure of the leaderboard is, and
`table` lists them. The store's views compute accuracy, label change and mCE in SQL too; tests hold the two equal.
"""

from cnnsens_bench.measures import table
from cnnsens_bench.measures.intervals import IntervalEstimate, accuracy_gain, clustered_interval
from cnnsens_bench.measures.predictions import accuracy, label_change
from cnnsens_bench.measures.spec import EntrantResults, MeasureSpec, measure, measures

__all__ = ["IntervalEstimate", "accuracy", "accuracy_gain", "clustered_interval", "label_change"]
__all__ += ["EntrantResults", "MeasureSpec", "measure", "measures", "table"]
