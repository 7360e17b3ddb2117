"""Pictures and pages, drawn from arrays. Knows nothing of networks and runs."""
