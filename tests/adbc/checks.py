"""What Python's ADBC driver sees of a server. Usage: checks.py URI CHECK [ARGUMENT]

Each check is a function; tests/tests/it/flight_sql.rs runs them. It fails by an exception and prints nothing else.
"""

import datetime
import decimal
import sys
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
# Runs for hours.
LONG = (
    "SELECT count(*) FROM generate_series(1, 200000) AS a(x), generate_series(1, 200000) AS b(y), "
    "generate_series(1, 1000) AS c(z) WHERE x + y + z = 7"
)


def connect(uri, **more):
    return flight_sql.connect(uri, autocommit=True, **more)


def fails(expected, parts, call):
    """The message of the error that the call must end with."""
    try:
        call()
    except expected as error:
        message = str(error)
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"
        return message
    raise AssertionError(f"no {expected} with {parts}")


def rows(cursor, sql, *parameters):
    cursor.execute(sql, *parameters)
    return cursor.fetchall()


def queries(uri):
    with connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS one, 'x' AS letter, CAST(NULL AS DOUBLE) AS nothing;")
        assert [column[0] for column in cursor.description] == ["one", "letter", "nothing"], cursor.description
        assert cursor.fetchone() == (1, "x", None)
        assert cursor.fetchone() is None
        table = cursor.execute("SELECT x, x % 3 AS y FROM generate_series(1, 100000) AS t(x)").fetch_arrow_table()
        assert table.num_rows == 100000 and sum(table["x"].to_pylist()) == 5000050000
        empty = cursor.execute("SELECT 1 AS x WHERE 1 = 2").fetch_arrow_table()
        assert empty.num_rows == 0 and empty.schema.names == ["x"]
        for sql, expected in [
            ("SELECT CAST('2024-02-29' AS DATE)", datetime.date(2024, 2, 29)),
            ("SELECT CAST(1.25 AS DECIMAL(10, 2))", decimal.Decimal("1.25")),
            ("SELECT [1, NULL, 3]", [1, None, 3]),
            ("SELECT named_struct('a', 1, 'b', 'z')", {"a": 1, "b": "z"}),
            ("SELECT arrow_cast('v', 'Utf8View')", "v"),
            ("SELECT arrow_cast('d', 'Dictionary(Int32, Utf8)')", "d"),
            ("SELECT true AND NULL", None),
        ]:
            assert rows(cursor, sql) == [(expected,)], (sql, rows(cursor, sql))
        words = "SELECT arrow_cast('w' || (x % 3), 'Dictionary(Int32, Utf8)') AS w FROM generate_series(1, 30000) AS t(x)"
        table = cursor.execute(words).fetch_arrow_table()
        assert sorted(set(table["w"].to_pylist())) == ["w0", "w1", "w2"] and table.num_rows == 30000
        # Two cursors of one connection, one half read.
        with connection.cursor() as other:
            cursor.execute("SELECT x FROM generate_series(1, 300000) AS t(x)")
            assert cursor.fetchone() is not None
            assert rows(other, "SELECT 7") == [(7,)]
        # Types that drivers have known for long, also where the planner leaves views.
        union = "SELECT arrow_cast('a', 'Utf8View') AS s UNION ALL SELECT arrow_cast('b', 'Utf8View')"
        table = cursor.execute(union).fetch_arrow_table()
        assert table.schema.field("s").type == pyarrow.large_string(), table.schema
        assert sorted(table["s"].to_pylist()) == ["a", "b"]


def errors(uri):
    wrong = (flight_sql.ProgrammingError, flight_sql.OperationalError, flight_sql.DatabaseError)
    with connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE nation AS SELECT 1 AS n_nationkey")
        fails(wrong, ["SELEKT"], lambda: cursor.execute("SELEKT 1"))
        fails(wrong, ["natoin", "did you mean `nation`?"], lambda: cursor.execute("SELECT * FROM natoin"))
        fails(wrong, ["ivide"], lambda: rows(cursor, "SELECT 1 / (n_nationkey - 1) FROM nation"))
        fails(wrong, ["one statement was expected"], lambda: cursor.execute("SELECT 1; SELECT 2"))
        fails(wrong, ["empty"], lambda: cursor.execute(" -- nothing"))
        fails(wrong, ["INSERT", "STORED AS DELTA"], lambda: cursor.execute("INSERT INTO nation VALUES (1)"))
        fails(wrong, ["dropped_already"], lambda: cursor.execute("DROP TABLE dropped_already"))
        # A connection lives on after each.
        assert rows(cursor, "SELECT 5") == [(5,)]


def changes(uri, folder):
    with connect(uri) as connection, connection.cursor() as cursor:
        # Nothing is fetched, and all the same it has happened.
        cursor.execute("CREATE TABLE made AS SELECT x FROM generate_series(1, 10) AS t(x)")
        cursor.execute("CREATE VIEW seen AS SELECT x FROM made WHERE x > 5")
        assert rows(cursor, "SELECT count(*), sum(x) FROM seen") == [(5, 40)]
        fails(flight_sql.Error, ["made", "exists already"], lambda: cursor.execute("CREATE TABLE made AS SELECT 1 AS x"))
        statement = cursor.adbc_statement
        statement.set_sql_query(f"COPY (SELECT * FROM made) TO '{folder}/made.parquet'")
        assert statement.execute_update() == 10
        statement.set_sql_query("DROP VIEW seen")
        assert statement.execute_update() == 0
        assert rows(cursor, f"COPY (SELECT * FROM made WHERE x < 4) TO '{folder}/few.csv'") == [(3,)]
        cursor.execute("DROP TABLE made")
        fails(flight_sql.Error, ["made"], lambda: cursor.execute("SELECT * FROM made"))


def parameters(uri):
    with connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE people AS SELECT * FROM (VALUES (1, 'ann'), (2, 'o''hara'), (3, NULL)) AS t(id, name)")
        by_name = "SELECT id FROM people WHERE name = ? AND id >= ?"
        assert rows(cursor, by_name, ("o'hara", 1)) == [(2,)]
        assert rows(cursor, by_name, ("' OR 1 = 1 --", 1)) == []
        assert rows(cursor, by_name, ("ann", 1)) == [(1,)]
        assert rows(cursor, "SELECT $2 AS x, $1 AS y, $2 AS z", (1, "b")) == [("b", 1, "b")]
        values = (1.5, None, True, datetime.date(2024, 1, 2), b"\x00\x01", decimal.Decimal("3.50"))
        assert rows(cursor, "SELECT ?, ?, ?, ?, ?, ?", values) == [values]
        assert rows(cursor, "SELECT x FROM generate_series(1, 9) AS t(x) ORDER BY x LIMIT ?", (2,)) == [(1,), (2,)]
        wrong = flight_sql.Error
        fails(wrong, ["no value is bound to $2"], lambda: cursor.execute(by_name, ("ann",)))
        fails(wrong, ["no value is bound"], lambda: cursor.execute("SELECT ? + 1"))
        fails(wrong, ["3 values", "2 placeholders"], lambda: cursor.execute(by_name, ("ann", 1, 2)))
        many = pyarrow.table({"0": ["ann", "x"], "1": [1, 2]})
        fails(wrong, ["several rows"], lambda: cursor.execute(by_name, many))
        fails(wrong, ["view", "placeholders"], lambda: cursor.execute("CREATE VIEW v AS SELECT ? AS x", (1,)))
        # An update runs once for each row: the last one stays.
        cursor.executemany("CREATE OR REPLACE TABLE last AS SELECT ? AS x, ? AS y", [(1, "a"), (2, "b"), (3, "c")])
        assert rows(cursor, "SELECT x, y FROM last") == [(3, "c")]
        schema = cursor.adbc_prepare(by_name)
        assert schema.names == ["$1", "$2"] and schema.field(1).type == pyarrow.int64(), schema
        assert cursor.adbc_execute_schema("SELECT id, name FROM people").names == ["id", "name"]


def ingest(uri):
    def table(*ids):
        return pyarrow.table({"id": pyarrow.array(ids, pyarrow.int32()), "name": [f"n{i}" for i in ids]})

    wrong = flight_sql.Error
    with connect(uri) as connection, connection.cursor() as cursor:
        count = lambda: rows(cursor, "SELECT count(*), sum(id), max(name) FROM ingested")[0]
        fails(wrong, ["ingested"], lambda: cursor.adbc_ingest("ingested", table(1), mode="append"))
        assert cursor.adbc_ingest("ingested", table(1, 2, 3)) == 3
        assert count() == (3, 6, "n3")
        fails(wrong, ["exists already"], lambda: cursor.adbc_ingest("ingested", table(1), mode="create"))
        assert cursor.adbc_ingest("ingested", table(4), mode="append") == 1
        assert count() == (4, 10, "n4")
        # By the names of the columns, into their types.
        turned = pyarrow.table({"name": ["n5"], "id": pyarrow.array([5], pyarrow.int64())})
        assert cursor.adbc_ingest("ingested", turned, mode="create_append") == 1
        assert count() == (5, 15, "n5")
        too_large = pyarrow.table({"name": ["x"], "id": pyarrow.array([1 << 40], pyarrow.int64())})
        fails(wrong, ["id", "does not fit"], lambda: cursor.adbc_ingest("ingested", too_large, mode="append"))
        other = pyarrow.table({"id": pyarrow.array([1], pyarrow.int32()), "age": [1]})
        fails(wrong, ["no column `age`"], lambda: cursor.adbc_ingest("ingested", other, mode="append"))
        assert count() == (5, 15, "n5")
        assert cursor.adbc_ingest("ingested", other, mode="replace") == 1
        assert rows(cursor, "SELECT * FROM ingested") == [(1, 1)]
        # Batches one by one, and a name that must be quoted.
        reader = pyarrow.RecordBatchReader.from_batches(table(1).schema, [b for i in range(20) for b in table(i).to_batches()])
        assert cursor.adbc_ingest('A "table"', reader) == 20
        assert rows(cursor, 'SELECT count(*) FROM "A ""table"""') == [(20,)]
        # Into another schema, which the driver then keeps for the cursor.
        with connection.cursor() as other:
            fails(wrong, ["no schema `shop`"], lambda: other.adbc_ingest("sold", table(1), db_schema_name="shop"))
            cursor.execute("CREATE SCHEMA shop")
            assert other.adbc_ingest("sold", table(1, 2), db_schema_name="shop") == 2
        assert rows(cursor, "SELECT count(*) FROM shop.sold") == [(2,)]
        fails(wrong, ["sold"], lambda: cursor.execute("SELECT * FROM sold"))
        cursor.execute("CREATE VIEW watched AS SELECT 1 AS id")
        fails(wrong, ["is a view"], lambda: cursor.adbc_ingest("watched", table(1), mode="replace"))
        # 72 MiB, in messages that the driver sends.
        million = pyarrow.record_batch({"x": pyarrow.array(range(1 << 20), pyarrow.int64())})
        huge = pyarrow.RecordBatchReader.from_batches(million.schema, [million] * 9)
        fails(wrong, ["bytes"], lambda: cursor.adbc_ingest("huge", huge))
        fails(wrong, ["huge"], lambda: cursor.execute("SELECT * FROM huge"))
        # For this connection only, in front of what all share.
        assert cursor.adbc_ingest("ingested", table(7, 8), mode="create", temporary=True) == 2
        assert cursor.adbc_ingest("ingested", table(9), mode="append", temporary=True) == 1
        assert rows(cursor, "SELECT sum(id) FROM ingested") == [(24,)]
        fails(wrong, ["exists already"], lambda: cursor.adbc_ingest("ingested", table(1), temporary=True))
        shown = rows(cursor, "SHOW CREATE TABLE ingested")[0][3]
        assert shown.endswith("CREATE TEMPORARY TABLE ingested (\"id\" INTEGER, \"name\" VARCHAR)"), shown
    with connect(uri) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT * FROM ingested") == [(1, 1)]
        # What is shown can be typed.
        shown = rows(cursor, "SHOW CREATE TABLE shop.sold")[0][3]
        assert shown.endswith("CREATE TABLE shop.sold (\"id\" INTEGER, \"name\" VARCHAR)"), shown
        cursor.execute("DROP TABLE shop.sold")
        cursor.execute(shown)
        assert cursor.adbc_ingest("sold", table(3), mode="append", db_schema_name="shop") == 1


def metadata(uri):
    with connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE listed AS SELECT 1 AS id, arrow_cast('x', 'Utf8View') AS name")
        cursor.execute("CREATE VIEW listed_too AS SELECT id FROM listed")
        cursor.execute("CREATE SCHEMA empty_one")
        cursor.execute("CREATE SCHEMA shop")
        cursor.execute("CREATE TABLE shop.goods AS SELECT 1 AS price")
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Tidemill" and info["vendor_version"], info
        assert connection.adbc_get_table_types() == ["LOCAL TEMPORARY", "TABLE", "VIEW"]
        schema = connection.adbc_get_table_schema("listed")
        assert schema.names == ["id", "name"] and schema.field("id").type == pyarrow.int64(), schema
        fails(flight_sql.Error, ["No table found"], lambda: connection.adbc_get_table_schema("no_such_table"))
        objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        assert [catalog["catalog_name"] for catalog in objects] == ["tidemill"], objects
        schemas = {schema["db_schema_name"]: schema for schema in objects[0]["catalog_db_schemas"]}
        assert set(schemas) == {"empty_one", "information_schema", "public", "shop", "system"}, schemas
        assert [table["table_name"] for table in schemas["shop"]["db_schema_tables"]] == ["goods"], schemas
        assert connection.adbc_get_table_schema("goods", db_schema_filter="shop").names == ["price"]
        tables = {table["table_name"]: table for table in schemas["public"]["db_schema_tables"]}
        assert tables["listed"]["table_type"] == "TABLE" and tables["listed_too"]["table_type"] == "VIEW", tables
        assert [column["column_name"] for column in tables["listed"]["table_columns"]] == ["id", "name"], tables
        assert {"runs", "tasks"} <= {table["table_name"] for table in schemas["system"]["db_schema_tables"]}
        some = connection.adbc_get_objects(depth="tables", table_name_filter="listed%").read_all().to_pylist()
        found = [t["table_name"] for s in some[0]["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert found == ["listed", "listed_too"], found


def sessions(uri):
    setting = "datafusion.execution.batch_size"
    size = f"SELECT value FROM information_schema.df_settings WHERE name = '{setting}'"
    for options in [COOKIES, {}]:
        with connect(uri, db_kwargs=options) as one, connect(uri, db_kwargs=options) as other:
            with one.cursor() as cursor, other.cursor() as others:
                default = rows(others, size)
                cursor.execute(f"SET {setting} = 1234")
                assert rows(cursor, size) == [("1234",)], options
                assert rows(others, size) == default, options
                fails(flight_sql.Error, ["no.such"], lambda: cursor.execute("SET datafusion.no.such = 1"))
                cursor.execute(f"RESET {setting}")
                assert rows(cursor, size) == default, options
                one.adbc_connection.set_options(**{"adbc.flight.sql.session.option." + setting: "4321"})
                assert rows(cursor, size) == [("4321",)], options
                value = one.adbc_connection.get_option("adbc.flight.sql.session.option." + setting)
                assert value == "4321", value
                wrong = {"adbc.flight.sql.session.option.no_such_option": "1"}
                fails(flight_sql.Error, [], lambda: one.adbc_connection.set_options(**wrong))
                assert one.adbc_current_catalog == "tidemill" and one.adbc_current_db_schema == "public"


def partitions(uri):
    with connect(uri) as connection, connection.cursor() as cursor:
        found, schema = cursor.adbc_execute_partitions("SELECT x FROM generate_series(1, 5) AS t(x) ORDER BY x")
        assert schema.names == ["x"]
        with connect(uri) as other, other.cursor() as reader:
            read = []
            for partition in found:
                reader.adbc_read_partition(partition)
                read.extend(reader.fetchall())
            assert read == [(1,), (2,), (3,), (4,), (5,)], read


def stream(uri, many):
    """Batches one by one: neither side has all rows at once."""
    many, thousands = int(many), int(many) // 1000
    with connect(uri) as connection, connection.cursor() as cursor:
        numbers = f"SELECT 1000 * (a - 1) + b AS x FROM generate_series(1, {thousands}) AS t(a), generate_series(1, 1000) AS u(b)"
        cursor.execute(f"SELECT x, x * 2 AS twice, x % 1000 AS y FROM ({numbers}) AS n")
        count, total = 0, 0
        for batch in cursor.fetch_record_batch():
            count += batch.num_rows
            total += pyarrow.compute.sum(batch.column(0)).as_py()
        assert (count, total) == (many, many * (many + 1) // 2), (count, total)


def state_of(cursor, statement, wanted):
    """Waits until the newest run of a statement is in some state."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        found = rows(cursor, f"SELECT state FROM system.runs WHERE statement LIKE '{statement}%' ORDER BY run_id DESC LIMIT 1")
        if found and found[0][0] == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"no run is {wanted}: {found}")


def cancel(uri):
    with connect(uri) as connection, connect(uri) as watching, watching.cursor() as watcher:
        ended = []
        with connection.cursor() as cursor:

            def run():
                try:
                    rows(cursor, LONG)
                except Exception as error:
                    ended.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            state_of(watcher, "SELECT count(*) FROM generate_series(1, 200000)", "running")
            cursor.adbc_cancel()
            thread.join(180)
            assert not thread.is_alive() and ended, "it goes on"
            state_of(watcher, "SELECT count(*) FROM generate_series(1, 200000)", "cancelled")
        # Whoever goes away in the middle of a result cancels it, too.
        with connection.cursor() as cursor:
            cursor.execute("SELECT x, 'going' FROM generate_series(1, 4000) AS a(x), generate_series(1, 1000) AS b(y)")
            assert cursor.fetchone() is not None
        state_of(watcher, "SELECT x, ''going''", "cancelled")


if __name__ == "__main__":
    import pyarrow.compute

    assert adbc_driver_manager.__version__
    globals()[sys.argv[2]](sys.argv[1], *sys.argv[3:])
