"""An incident on the running stack: planted by a seed, diagnosed by metrics, logs and traces, and graded by its evidence.

The parts: causes (the vocabulary, and the signs of each cause), facts (what a span, a log line or a metric says), plants (how each
cause is planted; releases, tokens, expired and customers are parts of it), witnesses (the three signals as tables), reports (what a
learner hands in), grading (the evidence is looked up again), touched (what else was changed), solving (the automatic solution), views
(the tables and plots of the chapter), cases (one incident from its beginning to its end).
"""

from stackbook.lessons.incident.cases import Case, begin, during, show
from stackbook.lessons.incident.causes import CAUSES, PLACES, Cause
from stackbook.lessons.incident.grading import POINTS, Score
from stackbook.lessons.incident.reports import Finding, Metric, Row, metric, row
from stackbook.lessons.incident.witnesses import Witnesses

__all__ = ["CAUSES", "PLACES", "POINTS", "Case", "Cause", "Finding", "Metric", "Row", "Score", "Witnesses", "begin", "during", "metric",
           "row", "show"]  # fmt: skip
