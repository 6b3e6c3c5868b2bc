"""What every room stands on: errors, results, redaction, waiting, locks, progress, paths."""
