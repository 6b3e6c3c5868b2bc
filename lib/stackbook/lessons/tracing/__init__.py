"""What chapter `tracing` shows."""
