-- name: begin_run
-- Inserts the run; a run that is there already is marked as running again.
INSERT INTO runs BY NAME
SELECT $run_id AS run_id, $suite AS suite, $schema_version AS schema_version, $protocol AS protocol,
    'running' AS status, now() AS started_at, $config AS config, $environment AS environment
ON CONFLICT (run_id) DO UPDATE SET status = 'running', finished_at = NULL;

-- name: run_protocol
SELECT protocol FROM runs WHERE run_id = $run_id;

-- name: finish_run
UPDATE runs SET status = $status, finished_at = now() WHERE run_id = $run_id;

-- name: clear_failures
DELETE FROM failures WHERE run_id = $run_id;

-- name: put_rows
INSERT OR REPLACE INTO <table> BY NAME SELECT * FROM rows;

-- name: model_digests
-- The digests of the weights with which this model made its predictions, for each defense that has some.
SELECT defense, weights_sha256
FROM models
WHERE model = $model AND dataset = $dataset
    AND defense IN (
        SELECT DISTINCT defense FROM predictions WHERE predictions.model = $model AND predictions.dataset = $dataset
    );

-- name: has_predictions
SELECT EXISTS (FROM protocol_predictions WHERE protocol = $protocol AND dataset = $dataset);

-- name: begun
-- Those of the images that the store has any row of under one protocol.
SELECT image_id FROM protocol_predictions
WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images)
UNION
SELECT image_id FROM sensitivity JOIN runs USING (run_id)
WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images)
UNION
SELECT image_id FROM sensitivity_predictions JOIN runs USING (run_id)
WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images);

-- name: missing
-- The product of images and wanted cells, without the cells that the store has predictions of under one protocol.
SELECT image_id, model, defense, degradation, level, trial
FROM wanted_images CROSS JOIN wanted
ANTI JOIN (
    SELECT image_id, model, defense, degradation, level, trial
    FROM protocol_predictions
    WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images)
) USING (image_id, model, defense, degradation, level, trial);

-- name: missing_scores
-- The product of images and wanted scores, without those that the store has under one protocol. The level-free score has
-- the predictor '', the degradation 'none' and level 0.
SELECT image_id, model, defense, predictor, degradation, level
FROM wanted_images CROSS JOIN wanted
ANTI JOIN (
    SELECT image_id, model, defense, '' AS predictor, 'none' AS degradation, 0 AS level
    FROM sensitivity JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
    UNION ALL
    SELECT image_id, model, defense, predictor, degradation, level
    FROM sensitivity_predictions JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
) USING (image_id, model, defense, predictor, degradation, level);

-- name: sample_predictions
-- The first rows of each entrant by a hash of their cells and a text, which are the same cells for all entrants of a data
-- set. The parameters are the text and the number of rows of an entrant.
WITH chosen AS (
    SELECT * FROM protocol_predictions
    QUALIFY row_number() OVER (
        PARTITION BY protocol, dataset, model, defense
        ORDER BY sha256(concat_ws(chr(31), ?, protocol, dataset, image_id, degradation, level, trial))
    ) <= ?
)
SELECT chosen.*, weights_sha256
FROM chosen LEFT JOIN models USING (dataset, model, defense)
ORDER BY protocol, dataset, model, defense, image_id, degradation, level, trial;

-- name: run_configs
SELECT run_id, config::VARCHAR AS config FROM runs;

-- name: count_predictions
SELECT protocol, dataset, model, defense, count(*) AS total FROM protocol_predictions GROUP BY ALL;

-- name: expected_and_measured
-- What predictors expect of each image under each condition, with the share of changed labels where there are trials.
SELECT e.*, m.measured, coalesce(m.n_trials, 0) AS n_trials
FROM expected_label_change AS e
LEFT JOIN predicted_label_change AS m
    USING (protocol, dataset, image_id, model, defense, predictor, degradation, level)
ORDER BY protocol, dataset, model, defense, predictor, degradation, level, image_id
