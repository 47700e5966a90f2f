-- name: summarize_predictions
-- Two summaries of the predictions, which several of the statements below need. `in_<table>` are views of the
-- submission's files.
CREATE TEMP TABLE entrant_rows AS
SELECT run_id, dataset, model, defense, max(architecture) AS architecture, count(*) AS predictions
FROM in_predictions GROUP BY run_id, dataset, model, defense;

CREATE TEMP TABLE image_labels AS
SELECT dataset, image_id, min(label) AS lowest, max(label) AS highest FROM in_predictions GROUP BY ALL;

-- name: protocols
SELECT protocol, dataset, count(DISTINCT image_id) AS test_images, count(DISTINCT (degradation, level)) AS conditions
FROM in_predictions JOIN in_runs USING (run_id)
GROUP BY ALL ORDER BY protocol, dataset;

-- name: entrants
SELECT protocol, dataset, model, defense, coalesce(max(e.architecture), '') AS architecture,
    coalesce(max(m.weights_sha256), '') AS weights_sha256, sum(predictions)::BIGINT AS predictions
FROM entrant_rows AS e JOIN in_runs USING (run_id) LEFT JOIN in_models AS m USING (dataset, model, defense)
GROUP BY ALL ORDER BY protocol, dataset, model, defense;

-- name: file_columns
DESCRIBE FROM read_parquet($file, hive_partitioning = false);

-- name: file_size
-- The rows that the footer names, and by how many bytes one column grows beyond 1000 times its size when it is
-- unpacked.
SELECT (SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata($file)),
    (SELECT max(total_uncompressed_size - 1000 * total_compressed_size) FROM parquet_metadata($file));

-- name: count_nulls
SELECT count(*) - count(COLUMNS(lambda c: list_contains($columns, c))) FROM query_table($table);

-- name: count_long_texts
SELECT count_if(length(COLUMNS(lambda c: list_contains($columns, c))) > $longest) FROM query_table($table);

-- name: count_paths
-- Absolute paths and URIs reveal where somebody keeps files, and a reader of the database might open them.
SELECT count_if(regexp_matches(COLUMNS(lambda c: list_contains($columns, c)), '^(/|~/|\\|[A-Za-z]:\\|file:)'))
FROM query_table($table);

-- name: count_not_finite
-- The views compute fourth powers. Those of a DOUBLE beyond the limit would overflow; those of a finite FLOAT do not.
SELECT count_if(NOT abs(COLUMNS(lambda c: list_contains($columns, c))) <= $limit) FROM query_table($table);

-- name: count_repeated_keys
-- Counts the rows whose key another row has.
SELECT count(*) - count(DISTINCT row(*COLUMNS(lambda c: list_contains($columns, c)))) FROM query_table($table);

-- name: json_of_runs
SELECT file_row_number, config::VARCHAR, environment::VARCHAR FROM in_runs ORDER BY file_row_number LIMIT $most;

-- name: wrong_row_of_runs
-- This statement and the next ones give the first row that no run would write, and what is wrong with it.
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN schema_version <> $schema_version THEN 'column schema_version: it must be ' || $schema_version
        WHEN status NOT IN ('running', 'done', 'incomplete', 'interrupted') THEN 'column status: it is none of a run'
        WHEN NOT regexp_full_match(suite, '[A-Za-z0-9_.-]+') THEN 'column suite: it is no name of a suite'
        WHEN protocol = '' OR run_id = '' THEN 'columns run_id, protocol: they must not be empty'
        WHEN NOT isfinite(started_at) OR NOT isfinite(finished_at) THEN 'columns started_at, finished_at: no time'
    END AS wrong
    FROM in_runs
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_images
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN label < 0 THEN 'column label: it must be 0 or more'
        WHEN width < 1 OR height < 1 THEN 'columns width, height: they must be 1 or more'
        WHEN NOT regexp_full_match(uri, '<folder>/[^/]*') THEN 'column uri: it must be <folder>/name'
    END AS wrong
    FROM in_images
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_models
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN coalesce(weights_sha256, '') = '' THEN 'column weights_sha256: whose predictions these are must be known'
        WHEN num_parameters < 0 THEN 'column num_parameters: it must be 0 or more'
        WHEN NOT input_size BETWEEN 1 AND 65536 THEN 'column input_size: it must be from 1 to 65536'
    END AS wrong
    FROM in_models
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_predictions
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN label IS NULL OR label < 0 THEN 'column label: it must be 0 or more'
        WHEN prediction IS NULL OR prediction < 0 THEN 'column prediction: it must be 0 or more'
        WHEN confidence IS NULL OR NOT confidence BETWEEN 0 AND 1 THEN 'column confidence: it must be from 0 to 1'
        WHEN true_probability IS NULL OR NOT true_probability BETWEEN 0 AND 1
            THEN 'column true_probability: it must be from 0 to 1'
        WHEN NOT reference_probability BETWEEN 0 AND 1 THEN 'column reference_probability: it must be from 0 to 1'
        WHEN NOT isfinite(reference_logit) THEN 'column reference_logit: it must be finite'
        WHEN true_rank IS NULL OR true_rank < 1 THEN 'column true_rank: it must be 1 or more'
        WHEN trial < 0 THEN 'column trial: it must be 0 or more'
        WHEN NOT abs(level) <= 1e12 THEN 'column level: it must be finite'
        WHEN degradation = 'none' AND (level <> 0 OR trial <> 0)
            THEN 'column degradation: the undegraded image has level 0 and trial 0'
    END AS wrong
    FROM in_predictions
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_sensitivity
-- The views take square roots of these columns.
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN grad_sq_norm < 0 THEN 'column grad_sq_norm: it must be 0 or more'
        WHEN pepper_sq_norm < 0 THEN 'column pepper_sq_norm: it must be 0 or more'
        WHEN margin_grad_sq_norm < 0 THEN 'column margin_grad_sq_norm: it must be 0 or more'
    END AS wrong
    FROM in_sensitivity
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_sensitivity_predictions
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN deviation < 0 THEN 'column deviation: it must be 0 or more'
        WHEN passes < 0 THEN 'column passes: it must be 0 or more'
        WHEN NOT abs(level) <= 1e12 THEN 'column level: it must be finite'
    END AS wrong
    FROM in_sensitivity_predictions
)
WHERE wrong IS NOT NULL;

-- name: wrong_row_of_speed
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN images < 0 THEN 'column images: it must be 0 or more'
        WHEN seconds < 0 THEN 'column seconds: it must be 0 or more'
        WHEN threads < 0 THEN 'column threads: it must be 0 or more'
    END AS wrong
    FROM in_speed
)
WHERE wrong IS NOT NULL;

-- name: row_without_run
SELECT run_id FROM query_table($table) ANTI JOIN in_runs USING (run_id) LIMIT 1;

-- name: row_without_image
SELECT image_id || ' of ' || dataset FROM query_table($table) ANTI JOIN in_images USING (dataset, image_id) LIMIT 1;

-- name: row_without_model
SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM query_table($table) ANTI JOIN in_models USING (dataset, model, defense) LIMIT 1;

-- name: run_without_predictions
SELECT run_id FROM in_runs ANTI JOIN entrant_rows USING (run_id) LIMIT 1;

-- name: model_without_predictions
SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM in_models ANTI JOIN entrant_rows USING (dataset, model, defense) LIMIT 1;

-- name: image_without_predictions
SELECT image_id || ' of ' || dataset FROM in_images ANTI JOIN image_labels USING (dataset, image_id) LIMIT 1;

-- name: image_with_other_label
SELECT image_id || ' of ' || dataset
FROM image_labels JOIN in_images AS i USING (dataset, image_id)
WHERE lowest <> highest OR i.label <> lowest LIMIT 1;

-- name: entrant_without_undegraded
SELECT image_id || ' of ' || dataset || ' and ' || model || ' with defense ' || defense
FROM in_predictions JOIN in_runs USING (run_id)
GROUP BY protocol, dataset, image_id, model, defense
HAVING NOT bool_or(degradation = 'none') LIMIT 1;

-- name: repeated_prediction
-- Only rows with equal hashes are compared, so that the keys of ten million rows need not be in memory.
WITH keyed AS (
    SELECT hash(protocol, dataset, image_id, model, defense, degradation, level, trial) AS hashed, p.*, protocol
    FROM in_predictions AS p JOIN in_runs USING (run_id)
),
alike AS MATERIALIZED (
    SELECT hash(protocol, dataset, image_id, model, defense, degradation, level, trial) AS hashed
    FROM in_predictions JOIN in_runs USING (run_id)
    GROUP BY hashed HAVING count(*) > 1
)
SELECT image_id || ' of ' || dataset || ', ' || model || ', ' || defense || ', ' || degradation || ' ' || level
    || ', trial ' || trial
FROM keyed SEMI JOIN alike USING (hashed)
GROUP BY protocol, dataset, image_id, model, defense, degradation, level, trial
HAVING count(*) > 1 LIMIT 1;
