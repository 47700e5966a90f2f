-- name: runs_of_results
-- The runs of a database, with the number of images that failed in each. Times are seconds since 1970.
SELECT run_id, suite, config::VARCHAR AS config, environment::VARCHAR AS environment, protocol, status,
    epoch(started_at) AS started_at, epoch(finished_at) AS finished_at, coalesce(failed, 0) AS failed_images
FROM runs LEFT JOIN (
    SELECT run_id, count(DISTINCT image_id) AS failed FROM failures WHERE image_id <> '' GROUP BY run_id
) USING (run_id)
ORDER BY runs.started_at, run_id;

-- name: entrants_of_results
-- The view `leaderboard`, with the weights, the share of cells and the runs of each entrant.
SELECT l.*, m.weights_sha256, m.input_size, s.share AS evaluated_share, p.runs
FROM leaderboard AS l
LEFT JOIN models AS m USING (dataset, model, defense)
LEFT JOIN evaluated_share AS s USING (protocol, dataset, model, defense)
LEFT JOIN (
    SELECT protocol, dataset, model, defense, list(DISTINCT run_id ORDER BY run_id) AS runs
    FROM protocol_predictions GROUP BY ALL
) AS p USING (protocol, dataset, model, defense)
ORDER BY l.protocol, l.dataset, l.mean_degraded_accuracy DESC NULLS LAST, l.model, l.defense;

-- name: conditions_of_results
-- What the views `accuracy` and `label_change` have, as one row for each entrant and condition.
SELECT protocol, dataset, model, defense, degradation, level, n_images, n_trials, accuracy,
    wilson_low(accuracy, size) AS accuracy_low, wilson_high(accuracy, size) AS accuracy_high, label_change,
    CASE WHEN changed_images > 0 THEN wilson_low(label_change, changed_size) END AS label_change_low,
    CASE WHEN changed_images > 0 THEN wilson_high(label_change, changed_size) END AS label_change_high
FROM condition_shares
ORDER BY protocol, dataset, model, defense, degradation <> 'none', degradation, level;
