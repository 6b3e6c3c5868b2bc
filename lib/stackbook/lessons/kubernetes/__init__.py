"""The code of chapter `kubernetes`."""
