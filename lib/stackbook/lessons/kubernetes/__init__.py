"""What chapter `kubernetes` shows."""
