"""Text to microseconds: exact to the digit, half to even beyond it, else refused."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transform.contract_file import load_contract
from transform.field_types import any_utc_text, utc_text
from transform.plan import Plan
from transform.records import UTC_MICROS
from transform.timestamps import (
    DIGITS_MAX,
    EARLIEST,
    EPOCH,
    LATEST,
    MICROSECOND,
    TimestampError,
    parse_json_timestamp,
    parse_timestamp,
    read_each,
    reader_of,
)

MANY = settings(max_examples=300, deadline=None)
WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)


def oracle(text, digits):
    """The moment in Python's decimal arithmetic, which holds every digit."""
    return int(WIDE.to_integral_value(WIDE.scaleb(WIDE.create_decimal(text), digits)))


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:00Z", 0),
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01T00:00:00+00:00", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T05:45:00+0545", 0),
        ("1969-12-31T16:00:00-08", 0),
        ("1970-01-01T23:59:00+23:59", 0),
        ("1969-12-31T00:01-23:59", 0),
        ("1970-01-01T00:00:00.1Z", 100_000),
        ("1970-01-01T00:00:00,25Z", 250_000),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("0001-01-01T00:00:00Z", EARLIEST),
        ("9999-12-31T23:59:59.999999Z", LATEST),
        ("0001-01-01T00:00:00-00:01", EARLIEST + 60_000_000),
        ("9999-12-31T23:59:59.999999+00:01", LATEST - 60_000_000),
    ],
)
def test_iso_text_with_any_offset(text, micros):
    assert parse_timestamp(text, "iso8601") == micros


DAY = 86_400_000_000


@MANY
@given(st.integers(EARLIEST + DAY, LATEST - DAY), st.integers(-1439, 1439))
def test_iso_text_is_read_as_the_standard_library_writes_it(micros, offset_minutes):
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = (EPOCH + micros * MICROSECOND).astimezone(zone)
    assert parse_timestamp(moment.isoformat(), "iso8601") == micros


@pytest.mark.parametrize(
    ("text", "form", "micros"),
    [
        ("0", "epoch_seconds", 0),
        ("-0", "epoch_seconds", 0),
        ("1594598735", "epoch_seconds", 1_594_598_735_000_000),
        ("-1", "epoch_seconds", -1_000_000),
        ("1594598735.7727768", "epoch_seconds", 1_594_598_735_772_777),
        ("1.5945987357727768e9", "epoch_seconds", 1_594_598_735_772_777),
        ("15945987357727768E-7", "epoch_seconds", 1_594_598_735_772_777),
        ("1594598735.77277650000000000000001", "epoch_seconds", 1_594_598_735_772_777),
        ("1594598735772", "epoch_millis", 1_594_598_735_772_000),
        ("1594598735772.7768", "epoch_millis", 1_594_598_735_772_777),
        ("-1", "epoch_millis", -1_000),
        ("0.0001", "epoch_millis", 0),
    ],
)
def test_epoch_numbers(text, form, micros):
    assert parse_timestamp(text, form) == micros


def test_a_moment_does_not_pass_through_a_double():
    text = "253402300799.9999994"  # the nearest double is a whole second away
    assert round(float(text) * 1e6) == 253_402_300_800_000_000
    assert parse_timestamp(text, "epoch_seconds") == 253_402_300_799_999_999


@pytest.mark.parametrize(
    ("fraction", "micros"),
    [
        (".0000005", 0),
        (".00000050000", 0),
        (".0000015", 2),
        (".0000025", 2),
        (".0000035", 4),
        (".00000049999999999999", 0),
        (".00000050000000000001", 1),
        (".9999995", 1_000_000),
        (".9999985", 999_998),
    ],
)
def test_beyond_the_microsecond_ties_go_to_even(fraction, micros):
    assert parse_timestamp(f"1970-01-01T00:00:00{fraction}Z", "iso8601") == micros
    assert parse_timestamp(f"0{fraction}", "epoch_seconds") == micros
    assert parse_timestamp(f"-0{fraction}", "epoch_seconds") == -micros
    assert parse_timestamp(f"0{fraction}e0", "epoch_seconds") == micros
    assert parse_timestamp(f"-0{fraction}e0", "epoch_seconds") == -micros
    assert parse_timestamp(f"1969-12-31T23:59:59{fraction}Z", "iso8601") == micros - 1_000_000


@MANY
@given(
    st.sampled_from(["epoch_seconds", "epoch_millis"]),
    st.integers(EARLIEST // 1_000_000 + 1, LATEST // 1_000_000 - 1),
    st.text("0123456789", min_size=1, max_size=26) | st.sampled_from(["0000005", "9999995", "5"]),
)
def test_any_decimal_is_read_as_exactly_as_decimal_reads_it(form, whole, fraction):
    digits = 6 if form == "epoch_seconds" else 3
    text = f"{whole}.{fraction}"
    expected = oracle(text, digits)
    assert parse_timestamp(text, form) == expected
    scientific = f"{Decimal(text):E}"
    if len(scientific) <= DIGITS_MAX:
        assert parse_timestamp(scientific, form) == expected


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("-62135596800", "epoch_seconds"),
        ("-62135596800000", "epoch_millis"),
        ("-62135596800.0000005", "epoch_seconds"),  # rounds into the year 1
    ],
)
def test_the_first_moment(text, form):
    assert parse_timestamp(text, form) == EARLIEST


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("253402300799.999999", "epoch_seconds"),
        ("253402300799999.999", "epoch_millis"),
        ("253402300799.9999994", "epoch_seconds"),  # rounds into the year 9999
    ],
)
def test_the_last_moment(text, form):
    assert parse_timestamp(text, form) == LATEST


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0001-01-01T00:00:00+00:01", "iso8601"),
        ("9999-12-31T23:59:59-00:01", "iso8601"),
        ("9999-12-31T23:59:59.9999995Z", "iso8601"),
        ("-62135596800.000001", "epoch_seconds"),
        ("253402300799.9999995", "epoch_seconds"),
        ("253402300800", "epoch_seconds"),
        ("1594598735772", "epoch_seconds"),  # milliseconds taken for seconds
        ("253402300800000", "epoch_millis"),
        ("-62135596800001", "epoch_millis"),
        ("1e40", "epoch_seconds"),
        ("1e41", "epoch_seconds"),
        ("1e-41", "epoch_seconds"),
        ("1e999999999", "epoch_seconds"),
    ],
)
def test_no_moment_lies_beyond_the_years_1_to_9999(text, form):
    with pytest.raises(TimestampError, match="is not between the years 1 and 9999"):
        parse_timestamp(text, form)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an ISO-8601 time"),
        ("now", "is not an ISO-8601 time"),
        ("1594598735", "is not an ISO-8601 time"),
        ("2020-01-01", "is not an ISO-8601 time"),
        ("2020-1-1T00:00:00Z", "is not an ISO-8601 time"),
        ("20200101T000000Z", "is not an ISO-8601 time"),
        ("2020-W01-1T00:00:00Z", "is not an ISO-8601 time"),
        ("2020-01-01T24:00:00Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:60:00Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:60Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:00.Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:00.5Z", "is not an ISO-8601 time"),
        ("+2020-01-01T00:00:00Z", "is not an ISO-8601 time"),
        (" 2020-01-01T00:00:00Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:00Z\n", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:00Z[UTC]", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:00 Z", "is not an ISO-8601 time"),
        ("٢٠٢٠-01-01T00:00:00Z", "is not an ISO-8601 time"),
        ("2020-01-01T00:00:00", "has no offset"),
        ("2020-01-01T00:00:00+25:00", "has an offset of a day or more"),
        ("2020-01-01T00:00:00-00:60", "has an offset of a day or more"),
        ("2021-02-29T00:00:00Z", "day"),
        ("2020-13-01T00:00:00Z", "month"),
        ("0000-01-01T00:00:00Z", "year 0"),
    ],
)
def test_text_that_is_no_iso_moment_is_refused(text, why):
    with pytest.raises(TimestampError, match=why):
        parse_timestamp(text, "iso8601")


@pytest.mark.parametrize("form", ["epoch_seconds", "epoch_millis"])
@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1.", ".5", "+1", "--1", "1_000", "1,5", "0x10", " 1", "1\n", "1e", "1e1.5"),
        *("NaN", "Infinity", "-inf", "true", "{}", "[1]", "٣", "2020-01-01T00:00:00Z"),
    ],
)
def test_text_that_is_no_number_is_refused(form, text):
    with pytest.raises(TimestampError, match="is not a decimal number"):
        parse_timestamp(text, form)


@pytest.mark.parametrize("form", ["epoch_seconds", "epoch_millis"])
def test_a_number_longer_than_any_moment_is_refused_unread(form):
    assert parse_timestamp("1." + "0" * (DIGITS_MAX - 2), form) > 0
    with pytest.raises(TimestampError, match="is over 40 characters long"):
        parse_timestamp("1." + "0" * (DIGITS_MAX - 1), form)
    with pytest.raises(TimestampError, match="is over 40 characters long"):
        parse_timestamp("1" * 200_000, form)


@MANY
@given(
    st.text("0123456789-+:.,TtZzEe ", max_size=45) | st.text(max_size=60),
    st.sampled_from(["iso8601", "epoch_seconds", "epoch_millis"]),
)
def test_any_other_text_is_refused_and_nothing_else_happens(text, form):
    try:
        micros = parse_timestamp(text, form)
    except TimestampError:
        return
    assert EARLIEST <= micros <= LATEST


SECONDS = Plan(load_contract("environment-sensors")).message
MILLIS = Plan(load_contract("telemetry")).message
WHEN = datetime(2020, 7, 13, 0, 5, 35, 772_777, tzinfo=UTC)


@pytest.mark.parametrize(
    ("decoder", "body", "micros"),
    [
        (SECONDS, '{"ts":1594598735,"device_id":"d"}', 1_594_598_735_000_000),
        (SECONDS, '{"ts":1594598735.7727768,"device_id":"d"}', (WHEN - EPOCH) // MICROSECOND),
        (SECONDS, '{"ts":"1594598735.7727768","device_id":"d"}', (WHEN - EPOCH) // MICROSECOND),
        (SECONDS, '{"ts":"159459873\\u0035","device_id":"d"}', 1_594_598_735_000_000),
        (MILLIS, '{"ts":1594598735772,"device_id":"d","seq":0,"readings":{"temperature":1}}', None),
        (
            MILLIS,
            '{"ts":"1594598735772","device_id":"d","seq":0,"readings":{"temperature":1}}',
            None,
        ),
    ],
)
def test_in_a_message_a_moment_is_a_number_or_the_same_number_quoted(decoder, body, micros):
    row, _ = decoder.decode(body.encode())
    at = [field.name for field in decoder.fields].index("event_time")
    assert row[at] == (micros or 1_594_598_735_772_000)


def read_by(parse, text):
    """The moment, or in what words there is none."""
    try:
        return parse(text)
    except TimestampError as error:
        return str(error)


def assert_readers_agree(text, form):
    exact = read_by(lambda it: parse_json_timestamp(it, form), text)
    assert read_by(reader_of(form), text) == exact
    assert read_by(reader_of(form, required=False), text) == (None if not text else exact)
    for others in ([], [b"1"], [b"1.5"]):
        read = reader_of(form, required=False)
        each = read_by(lambda it: read_each([*others, it], form, read)[-1], text)  # noqa: B023
        one_by_one = [read_by(read, one) for one in (*others, text)]
        assert each == next((o for o in one_by_one if isinstance(o, str)), one_by_one[-1])


@pytest.mark.parametrize("form", ["epoch_millis", "epoch_seconds", "iso8601"])
def test_nothing_is_a_moment_only_where_none_is_required(form):
    for nothing in (b"", b"null"):
        assert reader_of(form, required=False)(nothing) is None
        with pytest.raises(TimestampError):
            reader_of(form)(nothing)


numbers = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.tuples(st.integers(0, 10**15), st.text("0123456789", max_size=8)).map(
        lambda parts: f"{parts[0]}.{parts[1]}"
    ),
    st.decimals(-(10**13), 10**13, allow_nan=False).map(str),
    st.text("0123456789.-+eE\u0661", max_size=18),
)


@MANY
@given(numbers, st.sampled_from(["epoch_millis", "epoch_seconds", "iso8601"]), st.booleans())
def test_the_reader_of_a_format_reads_numbers_as_exactly(number, form, quoted):
    assert_readers_agree((f'"{number}"' if quoted else number).encode(), form)


def digits(count):
    return st.integers(0, 10**count - 1).map(f"{{:0{count}d}}".format)


years = digits(4) | st.sampled_from(["0000", "0001", "9999", "2024", "2026"])
days = st.tuples(years, digits(2) | st.just("02"), digits(2) | st.just("29")).map("-".join)
hours = st.integers(0, 29).map("{:02d}".format)
sixties = st.integers(0, 69).map("{:02d}".format)
fractions = st.sampled_from(["", ".", ","]).flatmap(
    lambda mark: st.text("0123456789", max_size=8).map(lambda part: mark + part)
)
offsets = st.one_of(
    st.sampled_from(["Z", "z", "", "+", "+00:00", "-00:00", "+24:00", "+01:00:30", "+0100", "-08"]),
    st.tuples(st.sampled_from("+-"), hours, st.just(":"), sixties).map("".join),
)
iso_texts = st.tuples(
    days,
    st.sampled_from("TTTt "),
    hours,
    st.just(":"),
    sixties,
    st.just(":"),
    sixties,
    fractions,
    offsets,
).map("".join)


@settings(MANY, max_examples=2_000)
@given(iso_texts)
@example("0001-01-01T00:00:00+00:01")
@example("9999-12-31T23:59:59.999999-00:01")
@example("2026-11-24T24:00:00Z")
@example("2026-11-24T10:00:00+01:60")
@example("2026-11-24T10:00:00+24:00")
@example("2026-02-29T10:00:00Z")
@example("2026-W48-2T10:00:00Z")
def test_the_reader_of_iso_text_reads_as_exactly(text):
    for form in ("iso8601", "epoch_millis"):
        assert_readers_agree(f'"{text}"'.encode(), form)


@MANY
@given(st.lists(st.none() | st.integers(EARLIEST, LATEST), max_size=5))
@example([EARLIEST, LATEST, None])
def test_judged_moments_have_the_text_that_any_has(micros):
    column = pa.array(micros, UTC_MICROS)
    texts = utc_text(column)
    assert texts == any_utc_text(column)
    assert texts == utc_text(column.cast(pa.int64()))
    read = [
        None if text is None else parse_timestamp(text, "iso8601") for text in texts.to_pylist()
    ]
    assert read == micros
