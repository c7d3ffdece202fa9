"""Bytes to columns to columns, and nothing else: no AWS client, no environment, no clock.

What is promised here is a function of its arguments, so a record's verdict is the same on every
attempt, on every machine, for ever (see ARCHITECTURE.md, law of verdicts).
"""
