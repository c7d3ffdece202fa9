"""AWS services in memory, at the level of boto3's clients: what Millrace uses of them, no more.

world          what every effect goes through: the one place where faults are injected
s3, dynamodb,
sqs, events    stores, with the limits and errors of the real ones
stepfunctions  Express workflows: the real ASL file, walked in whatever time the world has

They answer and raise as boto3's clients do; tests/test_doubles.py runs the same cases on both.
"""
