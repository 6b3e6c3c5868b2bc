"""stackbook: a microservice-stack guide as a lab that really runs."""

__version__ = "0.1.0"
