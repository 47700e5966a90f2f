-- Each part comes in once, and a chunk that is computed again is timed again: nothing is there twice.
INSERT INTO speed BY NAME SELECT * FROM read_parquet($files);
