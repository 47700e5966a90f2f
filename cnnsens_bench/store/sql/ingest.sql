-- name: parts_of_unknown_runs
-- Lists the part files that hold rows of runs which the database does not know. In the statements below, `new_rows` are
-- the rows of part files of one kind; see ingestion.py.
SELECT DISTINCT filename
FROM read_parquet($files, filename = true, union_by_name = true, hive_partitioning = false) ANTI JOIN runs USING (run_id);

-- name: predictions_overlap
-- Says whether any image of the parts already has predictions of the same network, under any protocol. If none has, the
-- new rows need not be compared with the stored ones.
SELECT EXISTS (
    FROM predictions
    SEMI JOIN (SELECT DISTINCT dataset, image_id, model, defense FROM new_rows) AS incoming
        USING (dataset, image_id, model, defense)
);

-- name: ingest_predictions
INSERT INTO predictions BY NAME SELECT * FROM new_rows;

-- name: ingest_new_predictions
-- Inserts each row once, and only rows that the same protocol does not have. Only the stored rows of the images that
-- come are compared, so that a large table costs a scan of two columns and not a hash table of all its rows.
INSERT INTO predictions BY NAME
WITH touched AS MATERIALIZED (
    SELECT DISTINCT runs.run_id, runs.protocol, incoming.dataset, incoming.image_id
    FROM (SELECT DISTINCT run_id, dataset, image_id FROM new_rows) AS incoming
    JOIN runs USING (run_id)
),
stored AS (
    SELECT touched.run_id, p.dataset, p.image_id, p.model, p.defense, p.degradation, p.level, p.trial
    FROM predictions AS p
    JOIN runs USING (run_id)
    JOIN touched ON touched.protocol = runs.protocol AND touched.dataset = p.dataset AND touched.image_id = p.image_id
)
SELECT DISTINCT ON (run_id, dataset, image_id, model, defense, degradation, level, trial) *
FROM new_rows
ANTI JOIN stored USING (run_id, dataset, image_id, model, defense, degradation, level, trial);

-- name: ingest_images
INSERT OR REPLACE INTO images BY NAME
SELECT DISTINCT ON (dataset, image_id) * FROM new_rows;

-- name: ingest_failures
-- EXCEPT keeps each row once, also where the error is NULL.
INSERT INTO failures BY NAME
SELECT run_id, dataset, image_id, stage, error FROM new_rows
EXCEPT
SELECT run_id, dataset, image_id, stage, error FROM failures;

-- name: ingest_sensitivity
-- Inserts each row once, and only rows that the same protocol does not have.
INSERT INTO sensitivity BY NAME
SELECT DISTINCT ON (protocol, dataset, image_id, model, defense, output) incoming.*
FROM new_rows AS incoming JOIN runs USING (run_id)
ANTI JOIN (
    SELECT runs.protocol, s.dataset, s.image_id, s.model, s.defense, s.output
    FROM sensitivity AS s JOIN runs USING (run_id)
    SEMI JOIN (SELECT DISTINCT dataset, image_id FROM new_rows) AS touched USING (dataset, image_id)
) AS stored USING (protocol, dataset, image_id, model, defense, output);

-- name: ingest_sensitivity_predictions
-- Inserts each row once, and only rows that the same protocol does not have.
INSERT INTO sensitivity_predictions BY NAME
SELECT DISTINCT ON (protocol, dataset, image_id, model, defense, predictor, degradation, level, output) incoming.*
FROM new_rows AS incoming JOIN runs USING (run_id)
ANTI JOIN (
    SELECT runs.protocol, s.dataset, s.image_id, s.model, s.defense, s.predictor, s.degradation, s.level, s.output
    FROM sensitivity_predictions AS s JOIN runs USING (run_id)
    SEMI JOIN (SELECT DISTINCT dataset, image_id FROM new_rows) AS touched USING (dataset, image_id)
) AS stored USING (protocol, dataset, image_id, model, defense, predictor, degradation, level, output);

-- name: ingest_speed
-- Every row is kept: a part is ingested once, and a task that is computed again is timed again.
INSERT INTO speed BY NAME SELECT * FROM new_rows;

-- name: rows_of_parts
-- Reads the footers alone.
SELECT file_name, num_rows FROM parquet_file_metadata($files);

-- name: parts_of_attempt
SELECT name FROM parts WHERE starts_with(name, $attempt || '/');
