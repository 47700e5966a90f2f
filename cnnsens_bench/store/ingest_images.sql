INSERT OR REPLACE INTO images BY NAME
SELECT DISTINCT ON (dataset, image_id) * FROM read_parquet($files);
