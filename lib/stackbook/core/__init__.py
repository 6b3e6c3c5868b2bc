"""What every other room builds on: errors, results, redaction, waiting, locks, progress, paths."""
