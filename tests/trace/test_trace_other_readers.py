"""A trace, finished or running, is read by pandas, Polars and DuckDB; imbdyn is not imported there."""

import subprocess
import sys

import pytest

from imbdyn.trace import TraceWriter

for package in ("polars", "duckdb"):
    pytest.importorskip(package)

SCRIPT = """
import sys
folder = sys.argv[1] + "/classes"
import pandas, polars, duckdb
frames = [
    pandas.read_parquet(folder),
    polars.read_parquet(folder + "/*.parquet").to_pandas(),
    polars.scan_parquet(folder + "/*.parquet").filter(polars.col("step") >= 0).collect().to_pandas(),
    duckdb.sql(f"select * from '{folder}/*.parquet'").df(),
]
for frame in frames:
    frame = frame.sort_values(["step", "class_id"])
    print(frame["step"].tolist(), frame["split"].tolist(), frame["loss"].isna().sum(), frame["loss"].sum())
((mean,),) = duckdb.sql(f"select avg(loss) from '{folder}/*.parquet' where class_id = 1").fetchall()
print(mean)
assert not [name for name in sys.modules if name.startswith("imbdyn")]
"""


@pytest.mark.parametrize("running", [True, False])
def test_other_programs_read_it(tmp_path, running):
    writer = TraceWriter(tmp_path / "run")
    for step in (1, 2):
        writer.append("classes", step=step, split=["train", "test"], class_id=[0, 1], loss=0.5)
        writer.commit()
        writer.flush()
    if running:
        writer.append("classes", step=3, split="train", class_id=0)
        writer.commit()  # in the journal
        (writer.path / "classes" / ".part-0000-00000009.parquet.tmp").write_bytes(b"in the making")
    else:
        writer.close("finished")
    # -I: neither the working folder nor PYTHONPATH is searched
    done = subprocess.run([sys.executable, "-I", "-c", SCRIPT, writer.path], check=True, capture_output=True, text=True)
    *frames, mean = done.stdout.splitlines()
    assert frames == ["[1, 1, 2, 2] ['train', 'test', 'train', 'test'] 0 2.0"] * 4
    assert mean == "0.5"
    if running:
        writer.close("finished")
