"""The program: sessions, checks, runs, reports, the command line."""
