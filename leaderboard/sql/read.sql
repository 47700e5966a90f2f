-- name: create_tables
-- What the command prints must not be mixed with a progress bar.
SET enable_progress_bar = false;
-- These tables hold what is kept in memory of all databases: sums per image, never single predictions.
CREATE TABLE image_ids (board BIGINT, image_id VARCHAR);
CREATE TABLE levels (board BIGINT, degradation VARCHAR, level DOUBLE);
CREATE TABLE per_image (
    file INTEGER, entrant INTEGER, condition INTEGER, image INTEGER, label INTEGER,
    trials BIGINT, hit DOUBLE, changed DOUBLE, top5 DOUBLE, nll DOUBLE
);
CREATE TABLE calibration (entrant INTEGER, degradation VARCHAR, level DOUBLE, bin INTEGER, gap DOUBLE, rows BIGINT);
-- The area under the risk–coverage curve, and the accuracy of the 90 % most confident predictions.
CREATE TABLE selection (entrant INTEGER, condition INTEGER, aurc DOUBLE, accuracy_at_90 DOUBLE);
-- Of boards on which a run has a budget: the cells of each entrant, its trials and a checksum of its cells under each
-- condition; the cells under the conditions where checksums differ; and the cells that not all entrants share.
CREATE TABLE evaluated (
    file INTEGER, entrant INTEGER, degradation VARCHAR, level DOUBLE, cells BIGINT, trials INTEGER, checksum HUGEINT
);
CREATE TABLE cells (entrant INTEGER, degradation VARCHAR, level DOUBLE, trial INTEGER, image_id VARCHAR);
CREATE TABLE unshared (board BIGINT, degradation VARCHAR, level DOUBLE, trial INTEGER, image_id VARCHAR);
CREATE TABLE class_names (dataset VARCHAR, image_id VARCHAR, class_name VARCHAR);
CREATE TABLE timings (entrant INTEGER, run_id VARCHAR, device VARCHAR, threads INTEGER, images BIGINT, seconds DOUBLE);

-- name: source_entrants
-- The entrants of the attached database, with the number of their predictions. `models` has one row for all protocols:
-- how the network sees images and what its outputs mean is taken from it where a run of this protocol wrote it.
WITH known_models AS (
    -- A database of an earlier version lacks these columns.
    SELECT NULL::VARCHAR AS trained_by, NULL::VARCHAR AS view, NULL::INTEGER AS outputs, NULL::VARCHAR AS matched_by,
        NULL::INTEGER AS classes
    WHERE false
    UNION ALL BY NAME FROM source.models
)
SELECT p.run_id, runs.protocol, p.dataset, p.model, p.defense, p.architecture, p.predictions,
    m.weights_sha256, m.num_parameters, m.input_size,
    CASE WHEN maker.protocol = runs.protocol THEN m.view END AS view,
    CASE WHEN maker.protocol = runs.protocol THEN m.outputs END AS outputs,
    CASE WHEN maker.protocol = runs.protocol THEN m.matched_by END AS matched_by,
    CASE WHEN maker.protocol = runs.protocol THEN m.classes END AS classes
FROM (
    SELECT run_id, dataset, model, defense, max(architecture) AS architecture, count(*) AS predictions
    FROM source.predictions GROUP BY ALL
) AS p
JOIN source.runs AS runs USING (run_id)
LEFT JOIN known_models AS m USING (dataset, model, defense)
LEFT JOIN source.runs AS maker ON maker.run_id = m.trained_by
ORDER BY ALL

-- name: source_runs
-- Times are text, because values of that type would need another library.
SELECT run_id, suite, protocol, status, strftime(started_at, '%Y-%m-%d %H:%M') AS started_at,
    config::VARCHAR AS config, environment::VARCHAR AS environment
FROM source.runs ORDER BY source.runs.started_at, run_id

-- name: source_failures
-- A network that could not be trained is a row without an image, and no failed image.
SELECT run_id, dataset, stage, count(DISTINCT image_id) AS images FROM source.failures WHERE image_id <> '' GROUP BY ALL ORDER BY ALL

-- name: load_class_names
INSERT INTO class_names SELECT dataset, image_id, class_name FROM source.images

-- name: load_evaluated
INSERT INTO evaluated
SELECT $file, entrant, degradation, level, count(*), max(trial) + 1, sum(hash(image_id, trial)::HUGEINT)
FROM source.predictions JOIN entrant_map USING (run_id, dataset, model, defense)
GROUP BY entrant, degradation, level

-- name: find_unequal
-- The conditions under which the entrants of a board differ in their cells, and the undegraded one.
CREATE TABLE unequal AS
SELECT board, degradation, level
FROM (
    SELECT entrant, degradation, level, sum(cells) AS cells, sum(checksum) AS checksum FROM evaluated GROUP BY ALL
) JOIN entrant_board USING (entrant)
GROUP BY ALL HAVING count(DISTINCT (cells, checksum)) > 1 OR degradation = 'none'

-- name: load_cells
INSERT INTO cells
SELECT entrant, degradation, level, trial, image_id
FROM source.predictions
JOIN entrant_map USING (run_id, dataset, model, defense)
JOIN entrant_board USING (entrant)
SEMI JOIN unequal USING (board, degradation, level)

-- name: find_unshared
-- A cell is shared if every entrant has it that has the image and the condition.
INSERT INTO unshared
WITH images AS (SELECT DISTINCT board, entrant, image_id FROM cells JOIN entrant_board USING (entrant) WHERE degradation = 'none'),
conditions AS (SELECT DISTINCT entrant, degradation, level FROM cells WHERE degradation <> 'none'),
asked AS (
    SELECT board, degradation, level, image_id, count(*) AS entrants
    FROM images JOIN conditions USING (entrant) GROUP BY ALL
),
had AS (
    SELECT board, degradation, level, image_id, trial, count(DISTINCT entrant) AS entrants
    FROM cells JOIN images USING (entrant, image_id) WHERE degradation <> 'none' GROUP BY ALL
)
SELECT board, degradation, level, trial, image_id
FROM had JOIN asked USING (board, degradation, level, image_id)
WHERE had.entrants < asked.entrants;
DROP TABLE cells

-- name: load_keys
-- The images and conditions of the attached database that are compared.
CREATE OR REPLACE TEMP VIEW compared AS
FROM source.predictions
JOIN entrant_map USING (run_id, dataset, model, defense)
JOIN entrant_board USING (entrant)
ANTI JOIN unshared USING (board, degradation, level, trial, image_id);
INSERT INTO image_ids SELECT DISTINCT board, image_id FROM compared;
INSERT INTO levels SELECT DISTINCT board, degradation, level FROM compared

-- name: number_keys
-- Images and conditions are numbered once for all databases, so that the sums per image need no texts.
CREATE TABLE image_index AS
SELECT board, image_id, (row_number() OVER (PARTITION BY board ORDER BY image_id) - 1)::INTEGER AS image
FROM (SELECT DISTINCT board, image_id FROM image_ids);

CREATE TABLE level_index AS
SELECT board, degradation, level,
    (row_number() OVER (PARTITION BY board ORDER BY degradation <> 'none', degradation, level) - 1)::INTEGER AS condition
FROM (SELECT DISTINCT board, degradation, level FROM levels);

DROP TABLE image_ids;
DROP TABLE levels;

-- name: load_shares
-- Shares per image and condition of the attached database, because trials are nested in images. A probability of 0 counts
-- as the smallest normal float32. Rows are sorted by entrant, so that those of one are found without reading all.
INSERT INTO per_image BY NAME
WITH entered AS NOT MATERIALIZED (
    SELECT entrant, condition, image, degradation, level, trial, label, prediction, true_rank, true_probability
    FROM source.predictions
    JOIN entrant_map USING (run_id, dataset, model, defense)
    JOIN entrant_board USING (entrant)
    JOIN image_index USING (board, image_id)
    JOIN level_index USING (board, degradation, level)
    ANTI JOIN unshared USING (board, degradation, level, trial, image_id)
),
undegraded AS (
    SELECT entrant, image, prediction AS reference
    FROM entered WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT $file AS file, entrant, condition, image, max(label) AS label, count(*) AS trials,
    avg((prediction = label)::DOUBLE) AS hit,
    avg((prediction <> reference)::DOUBLE) FILTER (degradation <> 'none') AS changed,
    avg((true_rank <= 5)::DOUBLE) AS top5,
    avg(-ln(greatest(true_probability::DOUBLE, 1.1754943508222875e-38))) AS nll
FROM entered LEFT JOIN undegraded USING (entrant, image)
GROUP BY entrant, condition, image
ORDER BY entrant

-- name: load_calibration
-- The bins of the expected calibration error (Guo et al. 2017); each bin excludes its lower edge.
INSERT INTO calibration
SELECT entrant, degradation, level,
    least(greatest(ceil(confidence::DOUBLE * 15)::INTEGER - 1, 0), 14) AS bin,
    sum((prediction = label)::DOUBLE - confidence::DOUBLE) AS gap, count(*) AS rows
FROM source.predictions AS p
JOIN entrant_map USING (run_id, dataset, model, defense)
JOIN entrant_board USING (entrant)
ANTI JOIN unshared USING (board, degradation, level, trial, image_id)
ANTI JOIN (FROM superseded WHERE file = $file) AS s USING (entrant, degradation, level, image_id)
WHERE confidence IS NOT NULL AND prediction IS NOT NULL
GROUP BY ALL

-- name: load_selection
-- How well confidence tells right predictions from wrong ones, as the view `confidence_selection` of a store computes it:
-- each image counts once, and predictions of equal confidence count as in any order, on average.
INSERT INTO selection
WITH numbered AS NOT MATERIALIZED (
    SELECT entrant, condition, image_id, confidence, (prediction <> label)::INTEGER AS wrong
    FROM source.predictions AS p
    JOIN entrant_map USING (run_id, dataset, model, defense)
    JOIN entrant_board USING (entrant)
    JOIN level_index USING (board, degradation, level)
    ANTI JOIN unshared USING (board, degradation, level, trial, image_id)
    ANTI JOIN (FROM superseded WHERE file = $file) AS s USING (entrant, degradation, level, image_id)
    WHERE confidence IS NOT NULL AND prediction IS NOT NULL AND label IS NOT NULL
),
weights AS (
    SELECT entrant, condition, image_id, 1 / count(*) AS weight FROM numbered GROUP BY ALL
),
ordered AS (
    SELECT entrant, condition, confidence, wrong, weight, sum(weight) OVER (
        PARTITION BY entrant, condition ORDER BY confidence DESC, weight ROWS UNBOUNDED PRECEDING
    ) AS kept
    FROM numbered JOIN weights USING (entrant, condition, image_id)
),
ties AS (
    SELECT entrant, condition, confidence, sum(weight) AS weight, sum(weight * wrong) AS errors,
        sum(weight / kept) AS inverse
    FROM ordered GROUP BY ALL
),
cumulated AS (
    SELECT *, errors / weight AS rate,
        sum(weight) OVER more_certain - weight AS before, sum(errors) OVER more_certain - errors AS errors_before,
        0.9 * sum(weight) OVER (PARTITION BY entrant, condition) AS wanted
    FROM ties
    WINDOW more_certain AS (PARTITION BY entrant, condition ORDER BY confidence DESC)
)
SELECT entrant, condition, sum(errors + (errors_before - rate * before) * inverse) / sum(weight) AS aurc,
    1 - arg_min((errors_before + rate * (wanted - before)) / wanted, before)
        FILTER (before + weight >= wanted - 1e-9) AS accuracy_at_90
FROM cumulated GROUP BY entrant, condition

-- name: pair_predictions
-- The predictions of two entrants of the attached database.
INSERT INTO paired
SELECT entrant, degradation, level, trial, image_id, prediction
FROM source.predictions JOIN entrant_map USING (run_id, dataset, model, defense)

-- name: load_timings
INSERT INTO timings
SELECT entrant, run_id, device, threads, images, seconds
FROM source.speed JOIN entrant_map USING (run_id, dataset, model, defense)
WHERE images > 0
