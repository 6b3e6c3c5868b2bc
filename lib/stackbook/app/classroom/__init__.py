"""A class: a lab for each learner on this host, side by side, and the commands for all of them."""
