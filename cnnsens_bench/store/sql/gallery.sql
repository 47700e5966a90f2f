-- name: gallery_entrants
-- Every entrant with the digest of its weights, and the last of the runs that made its predictions.
SELECT protocol, dataset, model, defense, weights_sha256, max_by(run_id, started_at) AS run_id
FROM (SELECT DISTINCT run_id, dataset, model, defense FROM predictions)
JOIN runs USING (run_id) LEFT JOIN models USING (dataset, model, defense)
GROUP BY ALL
ORDER BY protocol, dataset, model, defense;

-- name: image_fragility
-- The share of changed labels of each image of an entrant: the mean over levels, then over the degradations of the image.
-- `changes` of `cells` labels differ from `reference`, the label of the undegraded image.
WITH own AS MATERIALIZED (
    SELECT image_id, degradation, level, trial, label, prediction, confidence
    FROM protocol_predictions
    WHERE protocol = $1 AND dataset = $2 AND model = $3 AND defense = $4
),
undegraded AS (
    SELECT image_id, label, prediction AS reference FROM own WHERE degradation = 'none' AND level = 0 AND trial = 0
),
per_level AS (
    SELECT own.image_id, degradation, level, avg((prediction <> reference)::DOUBLE) AS share, count(*) AS cells,
        count(*) FILTER (prediction <> reference) AS changes, avg(confidence) AS confidence
    FROM own JOIN undegraded USING (image_id)
    WHERE degradation <> 'none'
    GROUP BY ALL
),
per_degradation AS (
    SELECT image_id, degradation, avg(share) AS share, sum(cells) AS cells, sum(changes) AS changes,
        avg(confidence) AS confidence
    FROM per_level GROUP BY ALL
)
SELECT image_id, any_value(label) AS label, any_value(reference) AS reference, avg(share) AS share,
    sum(cells)::BIGINT AS cells, sum(changes)::BIGINT AS changes, avg(confidence)::DOUBLE AS confidence
FROM per_degradation JOIN undegraded USING (image_id)
GROUP BY image_id
ORDER BY image_id;

-- name: first_changes
-- For each of some images, $5, the lowest level of each degradation at which the label of an entrant changes, and the
-- first trial in which it does. The first rows of an image are those of the lowest levels among the levels of their
-- degradation.
WITH own AS MATERIALIZED (
    SELECT image_id, degradation, level, trial, prediction
    FROM protocol_predictions
    WHERE protocol = $1 AND dataset = $2 AND model = $3 AND defense = $4
),
ranked_levels AS (
    SELECT degradation, level, row_number() OVER of_degradation / count(*) OVER (PARTITION BY degradation) AS strength
    FROM (SELECT DISTINCT degradation, level FROM own)
    WINDOW of_degradation AS (PARTITION BY degradation ORDER BY level)
),
undegraded AS (
    SELECT image_id, prediction AS reference FROM own
    WHERE degradation = 'none' AND level = 0 AND trial = 0 AND image_id IN (SELECT unnest($5))
)
SELECT image_id, degradation, level, trial, prediction
FROM own JOIN undegraded USING (image_id) JOIN ranked_levels USING (degradation, level)
WHERE degradation <> 'none' AND prediction <> reference
QUALIFY row_number() OVER (PARTITION BY image_id, degradation ORDER BY level, trial) = 1
ORDER BY image_id, strength, degradation;

-- name: label_transitions
-- How often the label of an undegraded image becomes another one, of an entrant, the most frequent first.
WITH own AS MATERIALIZED (
    SELECT image_id, degradation, level, trial, prediction
    FROM protocol_predictions
    WHERE protocol = $1 AND dataset = $2 AND model = $3 AND defense = $4
),
undegraded AS (
    SELECT image_id, prediction AS reference FROM own WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT reference, prediction, count(*) AS cells, count(DISTINCT image_id) AS images
FROM own JOIN undegraded USING (image_id)
WHERE degradation <> 'none' AND prediction <> reference
GROUP BY ALL
ORDER BY cells DESC, reference, prediction;
