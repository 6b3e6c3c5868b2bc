"""Metrics, traces and logs, and how they agree."""
