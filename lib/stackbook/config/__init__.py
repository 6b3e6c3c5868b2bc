"""What is asked for: profiles, chapters, their parameters, registries, the ledger of the guide."""
