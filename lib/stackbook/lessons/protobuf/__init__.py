"""Protobuf for the chapter that reads its bytes: a byte walker, protoc, evolution, and measurements."""
