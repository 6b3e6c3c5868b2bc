"""What each chapter shows, in a folder of its name."""
