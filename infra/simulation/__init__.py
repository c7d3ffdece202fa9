"""Deterministic simulation: the production code under a seeded schedule of faults.

scheduler  tasks in simulated time: every effect is a point where another task may go on
scenario   what a seed stands for: records, deployments, outages, how bad the weather is
contracts  the contracts that are deployed and published, with what verbs
drawn      what producers send, of every kind and in whatever envelope
weather    the faults: what becomes of each effect, by seed and ordinal
lambdas    the functions, as Lambda runs them: timeouts, crashes, lost answers, versions
sources    streams and queues with their event source mappings
messages   what must become of a message: the oracle's own idea of the rules
lake       the lake, compacted and read meanwhile
known      what the oracle was told, and what lies in the stores
oracle     what must be, counted independently of the code under test
books      the ledger, held against independent counts
account    the pipeline's clients, functions, workflow, sources and queues
operators  who run Millrace's commands meanwhile
guards     what the breaker and FIFO answers must not have done
told       what the rejection feed said
seals      who seals its hours, and whether they were final
proof      `millrace verify`, held against the oracle
verdict    every violation there is at the end of a run
run        a scenario to its end
shrink     a failing schedule made small

`python -m infra.simulation --seeds n`, or `make simulate SEEDS=n`.
"""
