"""Lambda's event source mappings as state machines: time, chance and faults are arguments.

answers    a function's answer → what a mapping makes of it
stream     a Kinesis mapping's settings and commands
shard      one shard of a Kinesis mapping
reshard    which shard may be read when
queue      an SQS mapping
events     records → the event that a function gets
on_failure a discarded batch → the document and the key that AWS writes
simulate*  all of it with simulated sources (simulated_*), in simulated time
plugin     the pytest fixture `millrace_esm`

The machines do no I/O: the local runtime drives them on real endpoints, tests in simulated time.
"""
