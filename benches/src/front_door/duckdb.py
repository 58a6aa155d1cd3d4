"""Runs a statement over Parquet files and writes its rows as an Arrow IPC stream to nowhere, a few times.

Arguments: the pattern of lineitem's files, the statement. Prints version, rows, bytes, sum of the first column, seconds.
"""

import statistics
import sys
import time

import duckdb
import pyarrow
import pyarrow.compute

pattern, statement = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET threads = 2")
connection.execute(f"CREATE VIEW lineitem AS SELECT * FROM read_parquet('{pattern}')")


def once():
    start = time.perf_counter()
    result = connection.execute(statement)
    # Of the names that versions have for it.
    names = ("to_arrow_reader", "fetch_record_batch")
    reader = next(getattr(result, name) for name in names if hasattr(result, name))(8192)
    sink = pyarrow.MockOutputStream()
    rows, total = 0, 0
    with pyarrow.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
            total += pyarrow.compute.sum(batch.column(0)).as_py() or 0
    return rows, sink.size(), total, time.perf_counter() - start


once()
measured = [once() for _ in range(5)]
rows, size, total, _ = measured[0]
print(duckdb.__version__, rows, size, total, statistics.median(seconds for *_, seconds in measured))
