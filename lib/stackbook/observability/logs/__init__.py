"""Logs: Elasticsearch, a shipper on every machine, and the path of each line between them."""

from stackbook.observability.logs.client import Store, opened
from stackbook.observability.logs.queries import access_log, wait_access

__all__ = ["Store", "access_log", "opened", "wait_access"]
