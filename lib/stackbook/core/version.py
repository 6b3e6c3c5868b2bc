"""The version of stackbook."""

__version__ = "0.1.0"
