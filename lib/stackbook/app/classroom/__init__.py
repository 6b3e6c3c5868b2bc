"""A class: a lab for each learner on this host, side by side, and what a trainer does with all of them."""
