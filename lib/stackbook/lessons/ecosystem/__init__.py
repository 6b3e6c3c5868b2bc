"""The guide's chapters 2.6, 2.7 and 3.3: what they only mention, with real parts where available."""
