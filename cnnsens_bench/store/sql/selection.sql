-- name: selection_views
-- How well confidence tells right predictions from wrong ones, for each model, defense and condition: the area under the
-- risk–coverage curve (AURC), and the accuracy of the 90 % most confident predictions; see
-- cnnsens_bench/measures/selective.py. Each image counts once, whatever the number of its trials. Predictions of equal
-- confidence count as in any order, on average.
CREATE OR REPLACE VIEW confidence_selection AS
WITH weighted AS (
    SELECT protocol, dataset, model, architecture, defense, degradation, level, image_id, trial, confidence,
        (prediction <> label)::INTEGER AS wrong,
        1 / count(*) OVER (PARTITION BY protocol, dataset, model, defense, degradation, level, image_id) AS weight
    FROM protocol_predictions
    WHERE confidence IS NOT NULL AND prediction IS NOT NULL
),
ordered AS (
    SELECT *, sum(weight) OVER (
        PARTITION BY protocol, dataset, model, defense, degradation, level ORDER BY confidence DESC, image_id, trial
        ROWS UNBOUNDED PRECEDING
    ) AS kept
    FROM weighted
),
ties AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level, confidence,
        sum(weight) AS weight, sum(weight * wrong) AS errors, sum(weight / kept) AS inverse, count(DISTINCT image_id) AS images
    FROM ordered
    GROUP BY protocol, dataset, model, defense, degradation, level, confidence
),
cumulated AS (
    SELECT *, errors / weight AS rate,
        sum(weight) OVER more_certain - weight AS before, sum(errors) OVER more_certain - errors AS errors_before,
        0.9 * sum(weight) OVER condition AS wanted
    FROM ties
    WINDOW condition AS (PARTITION BY protocol, dataset, model, defense, degradation, level),
        more_certain AS (PARTITION BY protocol, dataset, model, defense, degradation, level ORDER BY confidence DESC)
)
SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level,
    sum(errors + (errors_before - rate * before) * inverse) / sum(weight) AS aurc,
    1 - arg_min((errors_before + rate * (wanted - before)) / wanted, before) FILTER (before + weight >= wanted - 1e-9)
        AS accuracy_at_90,
    round(sum(weight))::BIGINT AS n_images
FROM cumulated
GROUP BY protocol, dataset, model, defense, degradation, level;

-- name: selection_entrants
SELECT DISTINCT protocol, dataset, model, defense FROM protocol_predictions ORDER BY ALL;

-- name: selection_rows
-- The predictions of an entrant, with those of the undegraded images.
WITH own AS (
    FROM protocol_predictions
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND confidence IS NOT NULL AND prediction IS NOT NULL
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
-- The label change that each predictor expects of an image of an entrant under a condition. The predictor 'paper' has no
-- drift of the margin, and tells no more than 'gradient'.
SELECT predictor, degradation, level, image_id, predicted FROM predicted_label_change
WHERE predictor <> 'paper' AND protocol = ? AND dataset = ? AND model = ? AND defense = ?;
