"""The code of chapter `traffic`."""
