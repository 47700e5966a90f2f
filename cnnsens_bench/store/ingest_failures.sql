-- EXCEPT keeps each row once, NULL errors too.
INSERT INTO failures BY NAME
SELECT run_id, dataset, image_id, stage, error FROM read_parquet($files)
EXCEPT
SELECT run_id, dataset, image_id, stage, error FROM failures;
