"""The embedded default: the whole of Millrace on one machine, on loopback, without an account."""
