"""Deterministic simulation: the production code under a seeded schedule of faults.

scheduler  tasks in simulated time: every effect is a point where another task may go on
scenario   what a seed stands for: records, deployments, outages, how bad the weather is
weather    the faults: what becomes of each effect, by seed and ordinal
lambdas    the functions, as Lambda runs them: timeouts, crashes, lost answers, versions
sources    streams and queues with their event source mappings
oracle     what must be, counted independently of the code under test
run        a scenario to its end, and the violations found
shrink     a failing schedule made small

`python -m infra.simulation --seeds n`, or `make simulate SEEDS=n`.
"""
