"""Delivery to its end: a push is tested, becomes an image, goes out as a canary, and stays or is taken back."""
