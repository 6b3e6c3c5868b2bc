"""The guide's chapters 2.6, 2.7 and 3.3: what is only named there, on real parts where they are available."""
