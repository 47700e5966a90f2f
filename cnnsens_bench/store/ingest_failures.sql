INSERT INTO failures BY NAME
SELECT DISTINCT run_id, dataset, image_id, stage, error FROM read_parquet($files)
ANTI JOIN failures USING (run_id, dataset, image_id, stage, error);
