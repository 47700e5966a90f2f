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

-- name: changed_cells
-- The cells of some images, $5, in which the label of an entrant changes. `rank` counts the entrant's levels of the
-- degradation upwards from 0, negative ones on their own, of which there are `levels`.
WITH own AS MATERIALIZED (
    SELECT image_id, degradation, level, trial, prediction
    FROM protocol_predictions
    WHERE protocol = $1 AND dataset = $2 AND model = $3 AND defense = $4
),
ranked AS (
    SELECT degradation, level, row_number() OVER (PARTITION BY degradation, level < 0 ORDER BY abs(level)) AS rank,
        count(*) OVER (PARTITION BY degradation, level < 0) AS levels
    FROM (SELECT DISTINCT degradation, level FROM own WHERE degradation <> 'none')
),
undegraded AS (
    SELECT image_id, prediction AS reference FROM own
    WHERE degradation = 'none' AND level = 0 AND trial = 0 AND image_id IN (SELECT unnest($5))
)
SELECT image_id, degradation, level, trial, prediction, rank, levels
FROM own JOIN undegraded USING (image_id) JOIN ranked USING (degradation, level)
WHERE prediction <> reference
ORDER BY image_id, degradation, level, trial;

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
