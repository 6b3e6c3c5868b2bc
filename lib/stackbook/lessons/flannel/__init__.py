"""The code of chapter `flannel`."""
