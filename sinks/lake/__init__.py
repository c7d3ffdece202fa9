"""`lake/`: what analysts query. Landing made compact, sorted, free of repeats, by event time."""
