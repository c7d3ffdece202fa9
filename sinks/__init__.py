"""Where records come to rest: raw, landing, quarantine, hot, ledger.

Each AWS service is spoken to in one module (`bucket`, `table`), with its limits at the top; each
resting place is another, all shaped alike. Clients, clocks and randomness are arguments.
"""
