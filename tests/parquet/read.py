"""Reads an exported Parquet file with pyarrow; see read.sh."""
import hashlib
import json
import sys

import pyarrow.parquet as pq

table = pq.read_table(sys.argv[1])
assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]", table.schema
assert str(table.schema.field("index").type) == "int64", table.schema
# Nanoseconds do not fit Python's datetime: they are compared as numbers.
table = table.set_column(table.schema.get_field_index("time"), "time", table["time"].cast("int64"))
for row in table.to_pylist():
    record = row["record"]
    record = record.encode() if isinstance(record, str) else bytes(record)
    assert hashlib.sha256(b"\0" + record).hexdigest() == row["leaf_hash"], row
    fields = json.loads(record)
    assert fields.get("gen_ai.tool.name") == row["gen_ai_tool_name"], row
    assert fields.get("status") == row["status"] and fields["call_id"] == row["call_id"], row
    assert int(fields["time_ns"]) == row["time"], row
print(table.num_rows)
