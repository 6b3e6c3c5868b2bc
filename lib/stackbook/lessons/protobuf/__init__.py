"""The code of chapter `protobuf`: a wire format reader, protoc, schema evolution, and measurements."""
