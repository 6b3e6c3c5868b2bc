"""The lab: what a chapter works with, its steps, its turns, its image sources."""
