INSERT INTO predictions BY NAME SELECT * FROM read_parquet($files);
