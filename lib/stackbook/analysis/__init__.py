"""Statistics, plots and tables, and their checks."""
