-- name: selection_views
-- How well confidence tells right predictions from wrong ones, for each model, defense and condition: the area under
-- the risk–coverage curve (AURC), and the accuracy of the 90 % most confident predictions; see
-- cnnsens_bench/measures/selective.py. Each image counts once, whatever the number of its trials. Predictions of equal
-- confidence count as in any order, on average.
CREATE OR REPLACE VIEW confidence_selection AS
WITH conditions AS MATERIALIZED (
    SELECT run_id, protocol, dataset, model, architecture, defense, degradation, level,
        dense_rank() OVER (ORDER BY protocol, dataset, model, defense, degradation, level)::INTEGER AS condition
    FROM (
        SELECT run_id, dataset, model, max(architecture) AS architecture, defense, degradation, level
        FROM predictions GROUP BY run_id, dataset, model, defense, degradation, level
    )
    JOIN runs USING (run_id)
),
numbered AS NOT MATERIALIZED (
    SELECT condition, image_id, confidence, (prediction <> label)::INTEGER AS wrong
    FROM predictions JOIN conditions USING (run_id, dataset, model, defense, degradation, level)
    WHERE confidence IS NOT NULL AND label IS NOT NULL
),
weights AS (
    SELECT condition, image_id, 1 / count(*) AS weight FROM numbered GROUP BY condition, image_id
),
ordered AS (
    SELECT condition, confidence, wrong, weight, sum(weight) OVER (
        PARTITION BY condition ORDER BY confidence DESC, weight ROWS UNBOUNDED PRECEDING
    ) AS kept
    FROM numbered JOIN weights USING (condition, image_id)
),
ties AS (
    SELECT condition, confidence, sum(weight) AS weight, sum(weight * wrong) AS errors, sum(weight / kept) AS inverse
    FROM ordered GROUP BY condition, confidence
),
cumulated AS (
    SELECT *, errors / weight AS rate,
        sum(weight) OVER more_certain - weight AS before, sum(errors) OVER more_certain - errors AS errors_before,
        0.9 * sum(weight) OVER (PARTITION BY condition) AS wanted
    FROM ties
    WINDOW more_certain AS (PARTITION BY condition ORDER BY confidence DESC)
),
summed AS (
    SELECT condition, sum(errors + (errors_before - rate * before) * inverse) / sum(weight) AS aurc,
        1 - arg_min((errors_before + rate * (wanted - before)) / wanted, before)
            FILTER (before + weight >= wanted - 1e-9) AS accuracy_at_90,
        round(sum(weight))::BIGINT AS n_images
    FROM cumulated GROUP BY condition
)
SELECT protocol, dataset, model, architecture, defense, degradation, level, aurc, accuracy_at_90, n_images
FROM summed JOIN (
    SELECT condition, protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level
    FROM conditions GROUP BY condition, protocol, dataset, model, defense, degradation, level
) USING (condition);

-- name: selection_entrants
SELECT DISTINCT protocol, dataset, model, defense FROM protocol_predictions ORDER BY ALL;

-- name: selection_rows
-- The predictions of an entrant, with those of the undegraded images.
WITH own AS (
    FROM protocol_predictions
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND confidence IS NOT NULL AND label IS NOT NULL
),
undegraded AS (
    SELECT image_id, confidence AS undegraded_confidence, prediction <> label AS undegraded_wrong
    FROM own WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT degradation, level, image_id, trial, prediction <> label AS wrong, confidence::DOUBLE AS confidence,
    undegraded_confidence::DOUBLE AS undegraded_confidence, undegraded_wrong
FROM own LEFT JOIN undegraded USING (image_id)
ORDER BY degradation, level, image_id, trial;

-- name: selection_margins
SELECT image_id, margin FROM protocol_sensitivity
WHERE output = 'margin' AND protocol = ? AND dataset = ? AND model = ? AND defense = ?;

-- name: selection_predictions
-- The label change that each predictor expects of an image of an entrant under a condition. The predictor 'paper' has
-- no drift of the margin, and tells no more than 'gradient'.
SELECT predictor, degradation, level, image_id, predicted FROM predicted_label_change
WHERE predictor <> 'paper' AND protocol = ? AND dataset = ? AND model = ? AND defense = ?;
