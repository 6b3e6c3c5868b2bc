"""What chapter `machines` shows."""
