"""Metrics, traces and logs, and whether they agree."""
