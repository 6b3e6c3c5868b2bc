"""What chapter `flannel` shows."""
