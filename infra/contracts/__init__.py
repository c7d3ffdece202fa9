"""Writing contracts: what `millrace contract` does, apart from the command line."""
