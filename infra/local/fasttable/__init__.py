"""A DynamoDB of our own on loopback, fast enough that the path before it can be measured.

It is no softer than the real one: signatures are verified, and what DynamoDB refuses is refused in
its words (the tests run each case on moto too). It serves what Millrace asks of a table with two
string keys, and says so of everything else. Numbers are read back as they were written.
"""
