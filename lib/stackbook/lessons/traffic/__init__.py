"""What chapter `traffic` shows."""
