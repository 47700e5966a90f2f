-- Of the parts, those with rows of runs that the database does not know.
SELECT DISTINCT filename
FROM read_parquet($files, filename = true) ANTI JOIN runs USING (run_id);
