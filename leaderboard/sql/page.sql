-- name: page_ranking
-- The ranking without its intervals, ranks, calibration, speed and what is relative to a reference: means over the levels of
-- a degradation, then over degradations. `averaged` marks the conditions that an entrant's means are over.
WITH conditions AS (
    SELECT model, defense, degradation, level, bool_or(averaged) AS averaged, avg(accuracy) AS accuracy,
        avg(label_change) AS label_change, avg(top5) AS top5, avg(nll) AS nll
    FROM read_parquet($file) GROUP BY ALL
),
degradations AS (
    SELECT model, defense, min(accuracy) AS worst_accuracy, avg(accuracy) AS accuracy,
        avg(label_change) AS label_change, avg(top5) AS top5, avg(nll) AS nll
    FROM conditions WHERE averaged GROUP BY model, defense, degradation
),
degraded AS (
    SELECT model, defense, avg(accuracy) AS mean_degraded_accuracy, avg(label_change) AS mean_label_change,
        min(worst_accuracy) AS worst_accuracy, avg(top5) AS top5_degraded, avg(nll) AS nll_degraded
    FROM degradations GROUP BY ALL
),
undegraded AS (SELECT model, defense, accuracy, top5, nll FROM conditions WHERE degradation = 'none')
FROM degraded FULL JOIN undegraded USING (model, defense)
ORDER BY mean_degraded_accuracy DESC, model, defense

-- name: page_conditions
-- The values of every curve.
SELECT model, defense, degradation, level, count(*) AS images, max(trials) AS trials, avg(accuracy) AS accuracy,
    avg(label_change) AS label_change
FROM read_parquet($file)
GROUP BY ALL
ORDER BY ALL

-- name: page_heat
-- The heat map: means over the levels of each degradation.
SELECT model, defense, degradation, avg(accuracy) AS accuracy, avg(label_change) AS label_change
FROM (
    SELECT model, defense, degradation, level, avg(accuracy) AS accuracy, avg(label_change) AS label_change
    FROM read_parquet($file) WHERE degradation <> 'none' GROUP BY ALL
)
GROUP BY ALL
ORDER BY ALL

-- name: page_fragile
-- The most fragile images of every entrant: label changes averaged over levels, then over the degradations of the image.
SELECT model, defense, image_id, class_name, avg(label_change) AS label_change
FROM (
    SELECT model, defense, image_id, class_name, degradation, avg(label_change) AS label_change
    FROM read_parquet($file) WHERE label_change IS NOT NULL GROUP BY ALL
)
GROUP BY model, defense, image_id, class_name HAVING avg(label_change) > 0
QUALIFY row_number() OVER (PARTITION BY model, defense ORDER BY avg(label_change) DESC, image_id) <= 8
ORDER BY model, defense, label_change DESC, image_id

-- name: page_compare
-- The paired differences of two entrants, without their intervals and tests.
WITH shares AS (
    SELECT model, defense, degradation, level, image_id, trials,
        CASE $measure WHEN 'label_change' THEN label_change ELSE accuracy END AS share
    FROM read_parquet($file)
)
SELECT degradation, level, count(*) AS n_images, max(a.trials) AS n_trials, avg(a.share) AS first,
    avg(b.share) AS second, avg(a.share - b.share) AS difference,
    count(*) FILTER (round(a.trials * (a.share - b.share)) > 0) AS images_for_first,
    count(*) FILTER (round(a.trials * (a.share - b.share)) < 0) AS images_for_second
FROM shares AS a JOIN shares AS b USING (degradation, level, image_id, trials)
WHERE a.model = $model_a AND a.defense = $defense_a AND b.model = $model_b AND b.defense = $defense_b
    AND a.share IS NOT NULL AND b.share IS NOT NULL
GROUP BY degradation, level
ORDER BY degradation <> 'none', degradation, level
