"""The Greeter for the chapter on gRPC: a server and a client in Python beside those in Go, and lessons on both."""

import os

# gRPC's C core logs each failed handshake to stderr, and the chapter makes handshakes fail on purpose.
# It reads this setting when `grpc` is first imported, so import `grpc` from here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

__all__ = ["grpc"]
