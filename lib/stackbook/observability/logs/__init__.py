"""What is written down: Elasticsearch, a shipper on every machine, and the way of each line from one to the other."""

from stackbook.observability.logs.client import Store, opened
from stackbook.observability.logs.queries import access_log, wait_access

__all__ = ["Store", "access_log", "opened", "wait_access"]
