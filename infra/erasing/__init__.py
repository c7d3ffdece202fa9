"""A device leaves every store: what there is of it, what is written instead, in which order."""
