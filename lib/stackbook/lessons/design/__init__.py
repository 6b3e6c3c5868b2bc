"""Architecture of the lab's services: who calls whom, who uses which words, what an outage affects, what they share."""
