"""What chapter `istio` shows."""
