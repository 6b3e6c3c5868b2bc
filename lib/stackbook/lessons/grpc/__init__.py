"""The Greeter for the chapter on gRPC: a server and a client in Python beside those in Go, and lessons on both."""

import os

# gRPC's C core writes of each failed handshake to stderr by itself; the chapter makes handshakes fail on purpose.
# It reads this when `grpc` is first imported, so take `grpc` from here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

__all__ = ["grpc"]
