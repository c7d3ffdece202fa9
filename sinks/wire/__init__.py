"""A transport of our own for the AWS calls on the path of a record.

plain          which environments say all that is needed, as Lambda's does
credentials    whose they are, by botocore's rules
endpoints      where a service is, by boto3's rules
signature      Signature Version 4
answers        HTTP/1.1 answers, read strictly
connection     one kept-alive connection, TLS verified
pool           connections that wait for their next request
service        a request signed, sent, answered; what may be sent twice and what never
dynamodb, s3,
stepfunctions  the calls themselves, behind the protocols of `table`, `bucket` and `workflow`

boto3 is the other choice and the oracle of the tests. Nothing here imports it or botocore but for
what the environment does not say; a cold start pays for neither.
"""
