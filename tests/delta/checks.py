"""What other engines see of a Delta table, and write into one. Usage: checks.py CHECK LOCATION [ARGUMENT…]

Each check is a function; tests/tests/it/datasets runs them. It fails by an exception and prints nothing else.
"""

import datetime
import decimal
import json
import os
import sys

import deltalake
import polars
import pyarrow as pa

AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP")
OPTIONS = {name: os.environ[name] for name in AWS if name in os.environ}


def table(location, version=None):
    return deltalake.DeltaTable(location, version=version, storage_options=OPTIONS)


def shown(value):
    """A value as Tidemill's JSON output has it."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def rows_of(columns, records, key):
    return sorted(([shown(record[column]) for column in columns] for record in records), key=lambda row: row[key])


def read(location, columns, expected):
    """Both engines read the same rows, which are these. The first column tells them apart."""
    columns, expected = json.loads(columns), json.loads(expected)
    ours = table(location).to_pyarrow_table()
    found = rows_of(columns, ours.to_pylist(), 0)
    assert found == expected, f"deltalake reads {found}, not {expected}"
    frame = polars.scan_delta(location, storage_options=OPTIONS or None).collect()
    found = rows_of(columns, frame.to_dicts(), 0)
    assert found == expected, f"polars reads {found}, not {expected}"


def instants(location, column, expected):
    """A column is of instants in UTC, for both engines; in the order of `id` they are these microseconds."""
    expected = json.loads(expected)
    ours = table(location).to_pyarrow_table().sort_by("id").column(column)
    assert ours.type == pa.timestamp("us", tz="UTC"), f"deltalake has {ours.type}"
    found = ours.cast(pa.int64()).to_pylist()
    assert found == expected, f"deltalake reads {found}, not {expected}"
    frame = polars.scan_delta(location, storage_options=OPTIONS or None).collect().sort("id")
    assert frame.schema[column] == polars.Datetime("us", "UTC"), f"polars has {frame.schema}"
    found = frame[column].dt.timestamp("us").to_list()
    assert found == expected, f"polars reads {found}, not {expected}"


def filtered(location, column, value, count):
    """What others skip by our partitions and statistics are not the rows that they look for."""
    frame = polars.scan_delta(location, storage_options=OPTIONS or None)
    found = frame.filter(polars.col(column) == json.loads(value)).collect().height
    assert found == int(count), f"{found} rows, not {count}"
    dataset = table(location).to_pyarrow_dataset()
    found = dataset.to_table(filter=pa.compute.field(column) == json.loads(value)).num_rows
    assert found == int(count), f"{found} rows, not {count}"


def history(location, version, operation, run):
    """Commits say which run made them."""
    entries = {entry["version"]: entry for entry in table(location).history()}
    entry = entries[int(version)]
    assert entry["operation"] == operation, entry
    assert entry["run"] == run, entry
    assert "inputs" in entry, entry
    assert table(location).transaction_version(f"tidemill/{run}") == 1


def published(location, version, run, job, start, end, inputs):
    """The version of an interval says which run of which job made it of which versions."""
    entry = {entry["version"]: entry for entry in table(location).history()}[int(version)]
    assert (entry["run"], entry["tidemill.job"]) == (run, job), entry
    assert (entry["tidemill.interval_start"], entry["tidemill.interval_end"]) == (start, end), entry
    assert json.loads(entry["inputs"]) == json.loads(inputs), entry


def versions(location, version, count, rows):
    """Old versions can be read."""
    assert table(location).version() == int(version), table(location).version()
    assert table(location, int(count)).to_pyarrow_table().num_rows == int(rows)


def write(location):
    """A table with what is hard: names, nulls, times, a column that comes later, and files removed again."""
    days = [datetime.date(2026, 1, 1), None, datetime.date(2026, 1, 2), datetime.date(2026, 1, 2)]
    names = ["a b/c=%20", "ü", None, "x:y"]
    times = [datetime.datetime(2026, 1, day, 12, 30, 0, 123456, tzinfo=datetime.timezone.utc) for day in (1, 2, 3, 4)]
    batch = pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int64()),
            "day": pa.array(days, pa.date32()),
            "name": pa.array(names, pa.string()),
            "amount": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50"), decimal.Decimal("0.00")], pa.decimal128(10, 2)),
            "at": pa.array(times, pa.timestamp("us", tz="UTC")),
            "ratio": pa.array([0.5, float("nan"), None, 2.0], pa.float64()),
            "tags": pa.array([["a", None], [], None, ["b"]], pa.list_(pa.string())),
        }
    )
    deltalake.write_deltalake(location, batch, partition_by=["day", "name"], storage_options=OPTIONS)
    wide = pa.table(
        {
            "id": pa.array([5, 6], pa.int64()),
            "day": pa.array([datetime.date(2026, 1, 3)] * 2, pa.date32()),
            "name": pa.array(["later", "gone"], pa.string()),
            "more": pa.array(["new", "old"], pa.string()),
        }
    )
    deltalake.write_deltalake(location, wide, mode="append", schema_mode="merge", storage_options=OPTIONS)
    table(location).delete("id = 6")
    table(location).create_checkpoint()
    last = wide.slice(0, 1).set_column(0, "id", pa.array([7], pa.int64()))
    deltalake.write_deltalake(location, last, mode="append", schema_mode="merge", storage_options=OPTIONS)


def append(location, count):
    """Rows from another engine into a table of ours, one commit each."""
    for number in range(int(count)):
        batch = pa.table({"id": pa.array([1000 + number], pa.int64()), "v": pa.array(["theirs"], pa.string())})
        deltalake.write_deltalake(location, batch, mode="append", storage_options=OPTIONS)


def widen(location):
    """Two columns come: one by itself, and one with a row, which asks more of readers and writers."""
    more = deltalake.Field("more", deltalake.schema.PrimitiveType("long"))
    table(location).alter.add_columns([more])
    batch = pa.table(
        {
            "id": pa.array([2], pa.int64()),
            "v": pa.array(["b"], pa.string()),
            "more": pa.array([20], pa.int64()),
            "at": pa.array([datetime.datetime(2026, 1, 1, 12, 30)], pa.timestamp("us")),
        }
    )
    deltalake.write_deltalake(location, batch, mode="append", schema_mode="merge", storage_options=OPTIONS)
    assert table(location).protocol().min_reader_version == 3, table(location).protocol()


def exactly(location, columns, expected):
    """Both engines see these columns, no others, and these rows. The protocol was never lowered since `widen`."""
    names = [field.name for field in table(location).schema().fields]
    assert names == json.loads(columns), f"deltalake has the columns {names}, not {columns}"
    names = polars.scan_delta(location, storage_options=OPTIONS or None).collect_schema().names()
    assert names == json.loads(columns), f"polars has the columns {names}, not {columns}"
    protocol = table(location).protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (3, ["timestampNtz"]), protocol
    read(location, columns, expected)


def constrained(location):
    """A table that asks its writers for what we do not do."""
    deltalake.write_deltalake(location, pa.table({"x": pa.array([1], pa.int64())}), storage_options=OPTIONS)
    table(location).alter.add_constraint({"positive": "x > 0"})


def main():
    check, location, *arguments = sys.argv[1:]
    globals()[check](location, *arguments)
    # Threads of these libraries that are still busy abort a process that ends as usual.
    os._exit(0)


main()
