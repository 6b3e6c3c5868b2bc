"""What the user chooses: profiles, chapters, their parameters, registries; and the ledger of the guide."""
