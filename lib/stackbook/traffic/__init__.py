"""Requests: load, the test bed, hypotheses about counted requests."""
