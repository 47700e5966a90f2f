-- name: outcomes
-- The predictions of one entrant under a protocol, of the wanted images and cells by their numbers: whether each is right,
-- and whether it differs from that of the undegraded image.
WITH own AS MATERIALIZED (
    SELECT image_id, degradation, level, trial, label, prediction
    FROM protocol_predictions
    WHERE protocol = $protocol AND dataset = $dataset AND model = $model AND defense = $defense
),
undegraded AS (
    SELECT image_id, prediction AS reference FROM own WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT image, cell, (prediction = label)::DOUBLE AS hit, (prediction <> reference)::DOUBLE AS changed
FROM own
JOIN wanted_images USING (image_id)
JOIN wanted_cells USING (degradation, level, trial)
LEFT JOIN undegraded USING (image_id);
