"""What Glue and Athena are told of a bucket: databases, tables, and queries worth saving.

It is all made from contracts, so there is no crawler: a crawler guesses from what it happens to
find, and columns, units and partitions are known before the first record lands.
"""
