"""The code of chapter `tracing`."""
