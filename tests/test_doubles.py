"""The doubles answer and raise as AWS does: each case runs on them and on moto."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from moto import mock_aws

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.events import EventBridge
from infra.doubles.kinesis import Kinesis
from infra.doubles.mappings import Mappings, Switch
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.stepfunctions import StateFailed, StateMachines, _by_jsonata, evaluated
from infra.doubles.world import Calm, Scripted
from infra.esm.simulated_queue import SimulatedQueue
from infra.esm.simulated_stream import SimulatedStream
from infra.simulation.account import definition
from loadtests.lake.folder import FolderS3
from tests.support import client, create_table

ALL = ("double", "moto")


@pytest.fixture(params=(*ALL, "folder"))
def s3(request, tmp_path):
    makers = {"double": lambda: S3(Calm()), "folder": lambda: FolderS3(tmp_path)}
    with mock_aws():
        made = makers.get(request.param, lambda: client("s3"))()
        made.create_bucket(Bucket="bucket")
        yield made


@pytest.fixture(params=ALL)
def dynamodb(request):
    with mock_aws():
        made = DynamoDB(Calm()) if request.param == "double" else client("dynamodb")
        create_table(made, "t")
        yield made


@pytest.fixture(params=ALL)
def events(request):
    with mock_aws():
        made = EventBridge(Calm()) if request.param == "double" else client("events")
        made.create_event_bus(Name="bus")
        yield made


@pytest.fixture(params=ALL)
def sqs(request):
    """A client and the URL of an empty queue, whose messages are invisible for 30 seconds."""
    with mock_aws():
        if request.param == "double":
            url = "https://sqs.us-east-1.amazonaws.com/1/q"
            yield SimpleNamespace(client=Sqs(Calm(), {url: SimulatedQueue()}), url=url)
            return
        made = client("sqs")
        url = made.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
        yield SimpleNamespace(client=made, url=url)


@pytest.fixture(params=ALL)
def kinesis(request):
    """A client of an account with the stream `s` of two shards."""
    with mock_aws():
        if request.param == "double":
            yield Kinesis(Calm(), {"s": SimulatedStream(shards=2)})
            return
        made = client("kinesis")
        made.create_stream(StreamName="s", ShardCount=2)
        yield made


def refusal(call):
    """Code and HTTP status of the error that a call raises."""
    with pytest.raises(ClientError) as raised:
        call()
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def item(pk="p", sk="s", **more):
    return {"pk": {"S": pk}, "sk": {"S": sk}, **more}


def put(**key):
    return {"PutRequest": {"Item": item(**key)}}


# S3


def test_s3_a_conditional_write_finds_its_key_taken(s3):
    s3.put_object(Bucket="bucket", Key="k", Body=b"one", IfNoneMatch="*")
    taken = lambda: s3.put_object(Bucket="bucket", Key="k", Body=b"two", IfNoneMatch="*")  # noqa: E731
    assert refusal(taken) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"one"
    s3.put_object(Bucket="bucket", Key="k", Body=b"two")
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"two"


def test_s3_a_write_replaces_just_what_was_read(s3):
    def put(body, tag):
        return s3.put_object(Bucket="bucket", Key="k", Body=body, IfMatch=tag)["ETag"]

    assert refusal(lambda: put(b"one", '"0"')) == ("NoSuchKey", 404)
    first = s3.put_object(Bucket="bucket", Key="k", Body=b"one")["ETag"]
    second = put(b"two", first)
    assert refusal(lambda: put(b"three", first)) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"two"
    assert put(b"three", second) != second


def test_s3_etag_and_length_are_of_the_bytes(s3):
    told = s3.put_object(Bucket="bucket", Key="k", Body=b"one")["ETag"]
    assert told == s3.get_object(Bucket="bucket", Key="k")["ETag"]
    assert s3.head_object(Bucket="bucket", Key="k")["ContentLength"] == 3


def test_s3_what_is_not_there(s3):
    assert refusal(lambda: s3.get_object(Bucket="bucket", Key="no")) == ("NoSuchKey", 404)
    assert refusal(lambda: s3.head_object(Bucket="bucket", Key="no")) == ("404", 404)
    assert refusal(lambda: s3.get_object(Bucket="no", Key="k")) == ("NoSuchBucket", 404)
    s3.delete_object(Bucket="bucket", Key="no")


def test_s3_listings_are_sorted_by_prefix_and_have_no_contents_when_empty(s3):
    for key in ("a/2", "b/1", "a/1"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="a/"))
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == ["a/1", "a/2"]
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "a/1"}, {"Key": "a/2"}]})
    (page,) = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="a/")
    assert "Contents" not in page


def test_s3_a_listing_says_when_an_object_was_written(s3):
    before = time.time()
    s3.put_object(Bucket="bucket", Key="k", Body=b"")
    (page,) = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    written = page["Contents"][0]["LastModified"]
    assert written.microsecond == 0  # S3 tells whole seconds
    assert before - 1 <= written.timestamp() <= time.time()


def test_s3_pages_go_on_where_the_last_one_ended():
    made = S3(Calm(), {"bucket": {}}, page_keys=2)
    for number in range(5):
        made.put_object(Bucket="bucket", Key=str(number), Body=b"")
    pages = list(made.get_paginator("list_objects_v2").paginate(Bucket="bucket"))
    assert [[e["Key"] for e in page["Contents"]] for page in pages] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]


def test_s3_objects_expire_by_prefix():
    now = [0.0]
    made = S3(Calm(lambda: now[0]), {"bucket": {}}, {"raw/": 60.0})
    for key in ("raw/1", "landing/1"):
        made.put_object(Bucket="bucket", Key=key, Body=b"")
    now[0] = 60.0
    (page,) = made.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    assert [entry["Key"] for entry in page["Contents"]] == ["landing/1"]


# DynamoDB


def test_dynamodb_a_batch_replaces_items_and_leaves_none(dynamodb):
    answer = dynamodb.batch_write_item(RequestItems={"t": [put(sk="1"), put(sk="2")]})
    assert answer["UnprocessedItems"] == {}
    dynamodb.batch_write_item(RequestItems={"t": [{"DeleteRequest": {"Key": item(sk="1")}}]})
    assert dynamodb.scan(TableName="t")["Items"] == [item(sk="2")]


@pytest.mark.parametrize(
    "requests",
    [
        [put(), put()],
        [{"PutRequest": {"Item": {"pk": {"S": "p"}}}}],
        [put(sk="")],
    ],
    ids=["the same key twice", "no sort key", "an empty key"],
)
def test_dynamodb_a_batch_that_can_never_be_taken(dynamodb, requests):
    told = refusal(lambda: dynamodb.batch_write_item(RequestItems={"t": requests}))
    assert told == ("ValidationException", 400)
    assert dynamodb.scan(TableName="t")["Items"] == []


def test_dynamodb_a_batch_of_26_is_refused():
    """As DynamoDB has it; moto takes any number."""
    made = DynamoDB(Calm(), {"t": {}})
    asked = [put(sk=str(number)) for number in range(26)]
    told = refusal(lambda: made.batch_write_item(RequestItems={"t": asked}))
    assert told == ("ValidationException", 400)


def test_dynamodb_no_such_table(dynamodb):
    told = refusal(lambda: dynamodb.batch_write_item(RequestItems={"no": [put()]}))
    assert told == ("ResourceNotFoundException", 400)


def test_dynamodb_a_condition_keeps_the_first_item(dynamodb):
    named = {"TableName": "t", "ConditionExpression": "attribute_not_exists(pk)"}
    dynamodb.put_item(**named, Item=item(n={"N": "1"}))
    again = lambda: dynamodb.put_item(**named, Item=item(n={"N": "2"}))  # noqa: E731
    assert refusal(again) == ("ConditionalCheckFailedException", 400)
    key = item()
    assert dynamodb.get_item(TableName="t", Key=key)["Item"]["n"] == {"N": "1"}
    dynamodb.delete_item(TableName="t", Key=key)
    assert "Item" not in dynamodb.get_item(TableName="t", Key=key)


def test_dynamodb_queries_are_in_order_and_between(dynamodb):
    for sk in ("c", "a", "b"):
        dynamodb.put_item(TableName="t", Item=item(sk=sk))
    dynamodb.put_item(TableName="t", Item=item(pk="other", sk="b"))
    pages = dynamodb.get_paginator("query").paginate(
        TableName="t",
        KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
        ExpressionAttributeValues={":pk": {"S": "p"}, ":low": {"S": "b"}, ":high": {"S": "c"}},
    )
    assert [found["sk"]["S"] for page in pages for found in page["Items"]] == ["b", "c"]


def test_dynamodb_a_scan_gives_the_attributes_asked_for(dynamodb):
    dynamodb.put_item(TableName="t", Item=item(n={"N": "1"}))
    pages = dynamodb.get_paginator("scan").paginate(TableName="t", ProjectionExpression="pk, sk")
    assert [found for page in pages for found in page["Items"]] == [item()]


def test_dynamodb_pages_go_on_where_the_last_one_ended():
    made = DynamoDB(Calm(), {"t": {}}, page_items=2)
    for number in range(5):
        made.put_item(TableName="t", Item=item(sk=str(number)))
    pages = list(made.get_paginator("scan").paginate(TableName="t"))
    assert [page["Count"] for page in pages] == [2, 2, 1]


# Kinesis


def sent(key="k", data=b"x", **more):
    return {"PartitionKey": key, "Data": data, **more}


def test_kinesis_positions_go_up_in_each_shard(kinesis):
    last = {"ExplicitHashKey": str(3 * 2**126)}
    wanted = [sent(ExplicitHashKey="0"), sent(**last), sent(ExplicitHashKey="0"), sent(**last)]
    answer = kinesis.put_records(StreamName="s", Records=wanted)
    assert answer["FailedRecordCount"] == 0
    got = [(r["ShardId"], int(r["SequenceNumber"])) for r in answer["Records"]]
    first, second = "shardId-000000000000", "shardId-000000000001"
    assert [shard for shard, _ in got] == [first, second, first, second]
    assert got[0][1] < got[2][1]
    assert got[1][1] < got[3][1]


def test_kinesis_a_key_has_its_shard(kinesis):
    keys = ["a", "b", "c", "d", "a", "b"]
    answer = kinesis.put_records(StreamName="s", Records=[sent(key) for key in keys])
    shards = [record["ShardId"][-1] for record in answer["Records"]]
    assert shards == ["0", "1", "0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([sent()] * 501, "ValidationException"),
        ([sent(data=bytes(2**20 + 1))], "ValidationException"),
        ([sent("k" * 257)], "InvalidArgumentException"),
        ([sent(data=bytes(1_000_000))] * 11, "InvalidArgumentException"),
    ],
    ids=["too many", "too large", "too long a key", "too large together"],
)
def test_kinesis_a_call_that_can_never_be_taken(kinesis, records, code):
    put = lambda: kinesis.put_records(StreamName="s", Records=records)  # noqa: E731
    assert refusal(put) == (code, 400)


def test_kinesis_lists_its_shards_and_their_ranges(kinesis):
    shards = kinesis.list_shards(StreamName="s")["Shards"]
    assert [shard["ShardId"][-1] for shard in shards] == ["0", "1"]
    ranges = [shard["HashKeyRange"] for shard in shards]
    assert ranges[0]["StartingHashKey"] == "0"
    assert int(ranges[1]["StartingHashKey"]) == int(ranges[0]["EndingHashKey"]) + 1
    assert not any("ParentShardId" in shard for shard in shards)
    assert not any("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards)


def test_kinesis_what_is_not_there(kinesis):
    put = lambda: kinesis.put_records(StreamName="no", Records=[sent()])  # noqa: E731
    assert refusal(put) == ("ResourceNotFoundException", 400)
    listed = lambda: kinesis.list_shards(StreamName="no")  # noqa: E731
    assert refusal(listed) == ("ResourceNotFoundException", 400)


def test_kinesis_a_stream_takes_some_and_not_others():
    stream = SimulatedStream()
    made = Kinesis(Scripted(["partial"]), {"s": stream})
    answer = made.put_records(StreamName="s", Records=[sent(str(n)) for n in range(100)])
    codes = [record.get("ErrorCode") for record in answer["Records"]]
    assert answer["FailedRecordCount"] == codes.count("ProvisionedThroughputExceededException") > 0
    assert len(stream.shards["shardId-000000000000"].records) == codes.count(None) > 0


# SQS


def test_sqs_a_message_is_received_until_it_is_deleted(sqs):
    sent = sqs.client.send_message(QueueUrl=sqs.url, MessageBody="hello")
    (got,) = sqs.client.receive_message(
        QueueUrl=sqs.url, AttributeNames=["All"], VisibilityTimeout=0
    )["Messages"]
    assert (got["MessageId"], got["Body"]) == (sent["MessageId"], "hello")
    assert got["Attributes"]["ApproximateReceiveCount"] == "1"
    (again,) = sqs.client.receive_message(QueueUrl=sqs.url, AttributeNames=["All"])["Messages"]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.client.delete_message(QueueUrl=sqs.url, ReceiptHandle=again["ReceiptHandle"])
    assert "Messages" not in sqs.client.receive_message(QueueUrl=sqs.url)


def test_sqs_visibility_is_shortened_entry_by_entry(sqs):
    for body in ("one", "two"):
        sqs.client.send_message(QueueUrl=sqs.url, MessageBody=body)
    got = sqs.client.receive_message(QueueUrl=sqs.url, MaxNumberOfMessages=2)["Messages"]
    assert "Messages" not in sqs.client.receive_message(QueueUrl=sqs.url)
    answer = sqs.client.change_message_visibility_batch(
        QueueUrl=sqs.url,
        Entries=[{"Id": "0", "ReceiptHandle": got[0]["ReceiptHandle"], "VisibilityTimeout": 0}],
    )
    assert [entry["Id"] for entry in answer["Successful"]] == ["0"]
    (back,) = sqs.client.receive_message(QueueUrl=sqs.url, MaxNumberOfMessages=2)["Messages"]
    assert back["MessageId"] == got[0]["MessageId"]


def test_sqs_visibility_of_one_message_is_ended(sqs):
    sqs.client.send_message(QueueUrl=sqs.url, MessageBody="one")
    (got,) = sqs.client.receive_message(QueueUrl=sqs.url)["Messages"]
    sqs.client.change_message_visibility(
        QueueUrl=sqs.url, ReceiptHandle=got["ReceiptHandle"], VisibilityTimeout=0
    )
    (back,) = sqs.client.receive_message(QueueUrl=sqs.url)["Messages"]
    assert back["MessageId"] == got["MessageId"]


def test_sqs_batches_are_sent_deleted_and_counted(sqs):
    entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(3)]
    answer = sqs.client.send_message_batch(QueueUrl=sqs.url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1", "2"]
    assert counts(sqs) == ("3", "0")
    got = sqs.client.receive_message(QueueUrl=sqs.url, MaxNumberOfMessages=2)["Messages"]
    assert counts(sqs) == ("1", "2")
    gone = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(got)]
    sqs.client.delete_message_batch(QueueUrl=sqs.url, Entries=gone)
    assert counts(sqs) == ("1", "0")


def counts(sqs):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = sqs.client.get_queue_attributes(QueueUrl=sqs.url, AttributeNames=names)["Attributes"]
    return tuple(told[name] for name in names)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([], "AWS.SimpleQueueService.EmptyBatchRequest"),
        (
            [{"Id": str(n), "MessageBody": "b"} for n in range(11)],
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        ),
        (
            [{"Id": "0", "MessageBody": "b"}] * 2,
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        ),
    ],
    ids=["none", "eleven", "the same id twice"],
)
def test_sqs_a_batch_that_can_never_be_taken(sqs, entries, code):
    send = lambda: sqs.client.send_message_batch(QueueUrl=sqs.url, Entries=entries)  # noqa: E731
    assert refusal(send) == (code, 400)


def test_sqs_a_queue_by_its_name(sqs):
    assert sqs.client.get_queue_url(QueueName="q")["QueueUrl"] == sqs.url
    code, _ = refusal(lambda: sqs.client.get_queue_url(QueueName="no"))
    assert code == "AWS.SimpleQueueService.NonExistentQueue"


# EventBridge


def entry(**more):
    made = {"EventBusName": "bus", "Source": "s", "DetailType": "t", "Detail": '{"a": 1}'}
    return made | more


def test_events_each_entry_is_taken_or_not_for_itself(events):
    answer = events.put_events(Entries=[entry(), entry(Detail="no"), entry()])
    assert answer["FailedEntryCount"] == 1
    assert ["EventId" in one for one in answer["Entries"]] == [True, False, True]
    assert answer["Entries"][1]["ErrorCode"] == "MalformedDetail"
    for name in ("Source", "DetailType", "Detail"):
        answer = events.put_events(Entries=[entry(**{name: ""})])
        assert answer["Entries"][0]["ErrorCode"] == "InvalidArgument"


def test_events_a_call_takes_ten(events):
    assert events.put_events(Entries=[entry()] * 10)["FailedEntryCount"] == 0
    assert refusal(lambda: events.put_events(Entries=[entry()] * 11)) == (
        "ValidationException",
        400,
    )


def test_events_a_bus_is_made_once_and_must_be_there(events):
    made_again = lambda: events.create_event_bus(Name="bus")  # noqa: E731
    assert refusal(made_again)[0] == "ResourceAlreadyExistsException"
    unknown = lambda: events.put_events(Entries=[entry(EventBusName="no")])  # noqa: E731
    assert refusal(unknown)[0] == "ResourceNotFoundException"


def test_events_an_entry_is_bounded_and_some_may_be_refused():
    bus = EventBridge(Scripted([None, "partial"]), {"bus": []})
    big = entry(Detail=json.dumps({"a": "x" * 262_144}))
    assert bus.put_events(Entries=[big])["FailedEntryCount"] == 1
    many = [entry(Detail=json.dumps({"a": number})) for number in range(10)]
    assert 0 < bus.put_events(Entries=many)["FailedEntryCount"] < 10


# Faults


@pytest.mark.parametrize(
    ("fault", "error", "happened"),
    [
        ("throttle", ClientError, False),
        ("error", ClientError, False),
        ("conflict", ClientError, False),
        ("timeout", ReadTimeoutError, False),
        ("lost", ConnectionClosedError, True),
    ],
)
def test_a_fault_raises_as_a_client_does_and_the_effect_may_have_happened(fault, error, happened):
    made = S3(Scripted([fault]), {"bucket": {}})
    with pytest.raises(error):
        made.put_object(Bucket="bucket", Key="k", Body=b"one")
    assert ("k" in made.buckets["bucket"]) is happened
    made.put_object(Bucket="bucket", Key="k", Body=b"two")


def test_what_the_sdk_sends_twice_finds_its_own_first_try():
    made = S3(Scripted(["twice"]), {"bucket": {}})
    call = lambda: made.put_object(Bucket="bucket", Key="k", Body=b"one", IfNoneMatch="*")  # noqa: E731
    assert refusal(call) == ("PreconditionFailed", 412)


def test_a_batch_is_taken_in_part_and_the_rest_told():
    made = DynamoDB(Scripted(["partial"]), {"t": {}})
    asked = [put(sk=str(number)) for number in range(20)]
    left = made.batch_write_item(RequestItems={"t": asked})["UnprocessedItems"]["t"]
    assert 0 < len(left) < 20
    assert len(made.tables["t"]) == 20 - len(left)


# Step Functions


class Host:
    """Functions as plain callables; no time passes but in `sleep`."""

    def __init__(self, transform, hot=None):
        self.functions = {"transform": transform, "hot": hot}
        self.slept = 0.0
        self.hangs = ""
        self.waited = []

    def invoke(self, function, payload):
        return self.functions[function.rpartition("-")[2]](payload)

    def within(self, work, seconds, what):
        if what == self.hangs:
            self.waited.append(seconds)
            raise TimeoutError
        return work()

    def sleep(self, seconds):
        self.slept += seconds

    def uniform(self, low, high):
        del low
        return high


STATE = {
    "pipeline": "p",
    "stream": "s",
    "raw_key": "raw/1",
    "archived": 1,
    "first": 0,
    "received": 1,
    "ledger_bucket": 1,
    "epoch": 0,
    "deadline_ms": 60_000,
}
DONE = {
    "outcome": "done",
    "contract": "c",
    "version": 1,
    "generation": "g",
    "landing_key": "",
    "landing_rows": 0,
    "landing_bytes": 0,
    "quarantine_key": "",
    "quarantine_rows": 0,
    "dropped_key": "",
    "dropped_rows": 0,
    "hot_rows": 0,
    "account": {
        "outcome": "done",
        "reason": "",
        "delivered": 1,
        "dropped": 0,
        "quarantined": 0,
        "retry": "[]",
    },
}


def executed(host, world=None, state=None, bus=None):
    """What an execution of the real file comes to, the host, and the ledger's items."""
    table = DynamoDB(world or Calm(lambda: 0.0), {"millrace-ledger": {}})
    bus = bus or EventBridge(Calm(), {"millrace": []})
    machines = StateMachines(
        Calm(lambda: 0.0), host, table, bus, {"arn:stateMachine:m": definition()}
    )
    answer = machines.client().start_sync_execution(
        stateMachineArn="arn:stateMachine:m", input=json.dumps(state or STATE)
    )
    return answer, table.tables["millrace-ledger"], machines.executions[0].entered


def test_states_an_execution_walks_the_file_and_settles():
    answer, items, entered = executed(Host(lambda _: DONE))
    assert answer["status"] == "SUCCEEDED"
    assert json.loads(answer["output"])["account"] == DONE["account"]
    assert entered == ["Transform", "Any hot rows?", "Settle", "Any rejects?", "Settled"]
    ((pk, sk),) = items
    assert (pk, sk) == ("1970-01-01T00:00#1", answer["executionArn"])


def test_states_a_function_that_dies_is_caught_and_named():
    def dies(_):
        raise StateFailed("Lambda.Unknown", "signal: killed")

    answer, items, _ = executed(Host(dies))
    assert (answer["status"], answer["error"]) == ("FAILED", "TransformDied")
    assert "signal: killed" in answer["cause"]
    assert items == {}


def test_states_an_invocation_that_did_not_happen_is_tried_again():
    tries = []

    def busy(_):
        tries.append(1)
        if len(tries) < 3:
            error = {"Error": {"Code": "TooManyRequestsException"}}
            raise ClientError(error, "Invoke")
        return DONE

    host = Host(busy)
    answer, _, _ = executed(host)
    assert answer["status"] == "SUCCEEDED"
    assert host.slept == 1 + 2  # IntervalSeconds, then BackoffRate times it


def test_states_an_item_whose_answer_got_lost_is_its_own():
    answer, items, entered = executed(Host(lambda _: DONE), Scripted(["lost"], lambda: 0.0))
    assert answer["status"] == "SUCCEEDED"
    assert len(items) == 1
    assert entered[-3:] == ["Settle", "Any rejects?", "Settled"]


REJECTED = {"id": "1", "reason": "malformed_json", "count": 2, "examples": [{"sequence": "7"}]}
REJECTING = DONE | {"quarantine_key": "quarantine/x", "rejected": [REJECTED], "untold": 3}


def told(faults=(), kinds=1, hangs="", **state):
    """An execution with rejects, whose events meet these faults; and the bus."""
    answer = REJECTING | {"rejected": [REJECTED | {"id": str(n)} for n in range(kinds)]}
    bus = EventBridge(Scripted(faults, lambda: 0.0), {"millrace": []})
    host = Host(lambda _: answer)
    host.hangs = hangs
    got, _, entered = executed(host, state=STATE | state, bus=bus)
    assert got["status"] == "SUCCEEDED"
    output = json.loads(got["output"])
    assert output["account"] == DONE["account"]
    return output, entered, bus.buses["millrace"], host


def test_states_producers_are_told_of_each_kind_of_reject():
    output, entered, entries, _ = told(kinds=2)
    assert entered[-3:] == ["Any rejects?", "Tell producers", "Settled"]
    assert "not_told" not in output
    assert [json.loads(entry["Detail"])["id"] for entry in entries] == ["0", "1"]
    assert {(e["EventBusName"], e["Source"], e["DetailType"]) for e in entries} == {
        ("millrace", "millrace", "Records rejected")
    }
    assert json.loads(entries[0]["Detail"]) == REJECTED | {
        "id": "0",
        "pipeline": "p",
        "contract": "c",
        "stream": "s",
        "untold": 3,
        "quarantine_key": "quarantine/x",
        "settled_at": "1970-01-01T00:00:00.000Z",
    }


@pytest.mark.parametrize("fault", ["throttle", "error", "timeout", "lost", "partial"])
def test_states_events_are_put_again_once(fault):
    """At least once: a lost answer or a part that was not taken repeats the others."""
    output, entered, entries, host = told([fault], kinds=4)
    assert entered[-2:] == ["Tell producers", "Settled"]
    assert "not_told" not in output
    assert {json.loads(entry["Detail"])["id"] for entry in entries} == {"0", "1", "2", "3"}
    assert host.slept == 1


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("throttle", "EventBridge.ThrottlingException"),
        ("error", "EventBridge.InternalException"),
        ("timeout", "EventBridge.SdkClientException"),
        ("lost", "EventBridge.SdkClientException"),
        ("partial", "EventBridge.FailedEntry"),
    ],
)
def test_states_a_bus_that_takes_nothing_changes_no_outcome(fault, name):
    output, entered, _, host = told([fault, fault], kinds=9)
    assert entered[-2:] == ["Tell producers", "Settled"]
    assert output["not_told"] == name
    assert host.slept == 1


def test_states_a_bus_that_hangs_is_left_after_its_time():
    output, _, _, host = told(hangs="arn:aws:states:::events:putEvents")
    assert output["not_told"] == "States.Timeout"
    assert host.waited == [2, 2]


def test_states_without_time_nobody_is_told():
    _, entered, entries, _ = told(deadline_ms=14_999)
    assert entered[-2:] == ["Any rejects?", "Settled"]
    assert entries == []


def test_states_state_has_its_limit():
    answer, _, _ = executed(Host(lambda _: DONE | {"more": "x" * 262_144}))
    assert answer["status"] == "FAILED"
    with pytest.raises(ClientError):
        executed(Host(lambda _: DONE), state=STATE | {"more": "x" * 262_144})


# Paths that need no JSONata


STATES = {
    "input": {
        "count": 3,
        "share": 0.5,
        "yes": True,
        "none": None,
        "text": "t",
        "empty": "",
        "list": [1],
        "nest": {"count": 0, "list": [{"x": 1}]},
    }
}


@pytest.mark.parametrize("path", ["", "count", "share", "yes", "none", "text", "empty", "list"])
@pytest.mark.parametrize("around", ["$states.input{}", "$string($states.input{})"])
@pytest.mark.parametrize("below", ["", "nest", "gone"])
def test_a_path_comes_to_what_jsonata_says(path, around, below):
    names = "".join(f".{name}" for name in (below, path) if name)
    text = f"{{% {around.format(names)} %}}"
    assert evaluated(text, STATES) == _by_jsonata(text, STATES)


# Lambda


def test_a_mapping_is_found_by_function_and_source_and_turned_off():
    turned = []
    made = Mappings(Calm(), {"m": Switch("f", "arn:q", turned.append)})
    assert made.list_event_source_mappings(FunctionName="f", EventSourceArn="arn:r") == {
        "EventSourceMappings": []
    }
    for _ in range(2):
        made.update_event_source_mapping(UUID="m", Enabled=False)
    (told,) = made.list_event_source_mappings(FunctionName="f", EventSourceArn="arn:q")[
        "EventSourceMappings"
    ]
    assert (told, turned) == ({"UUID": "m", "State": "Disabled"}, [False])
    gone = lambda: made.update_event_source_mapping(UUID="n", Enabled=False)  # noqa: E731
    assert refusal(gone) == ("ResourceNotFoundException", 404)
