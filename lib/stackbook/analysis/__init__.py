"""Statistics, plots, tables, and what they are checked by."""
