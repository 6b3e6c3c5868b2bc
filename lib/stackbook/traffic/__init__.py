"""Requests: the load, the test bed, and hypotheses about counted requests."""
