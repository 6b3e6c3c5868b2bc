"""Machines: how they are reached, what is read of them, what is changed on them, where they come from."""
