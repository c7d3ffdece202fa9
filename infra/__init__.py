"""One description of the system and its readers: the local runtime, the command line."""
