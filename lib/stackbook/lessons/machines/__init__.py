"""The code of chapter `machines`."""
