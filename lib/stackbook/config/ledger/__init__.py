"""The guide's ledger: every command, file and claim of the guide, its verdict, and the cells that show or prove it.

>>> from stackbook.config import ledger
>>> len(ledger.load())
311
>>> ledger.load()["K100"].verdict
'wrong'
"""

from stackbook.config.ledger.coverage import HOW, Coverage, Proof, coverage, report
from stackbook.config.ledger.entries import Entry, load, parse
from stackbook.config.ledger.errata import COMMAND as ERRATA_COMMAND
from stackbook.config.ledger.errata import errata

__all__ = ["ERRATA_COMMAND", "HOW", "Coverage", "Entry", "Proof", "coverage", "errata", "load", "parse", "report"]
