"""Architecture on the lab's own services: who calls whom, who speaks of what, what an outage reaches, what they share."""
