"""The code of chapter `istio`."""
