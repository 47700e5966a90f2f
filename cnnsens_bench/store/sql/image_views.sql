-- name: image_views
-- The shares and means of the views `accuracy`, `label_change` and `leaderboard` with intervals for these very images: only
-- the choice of cells by a budget and the noise of trials count. `FinitePopulation` of cnnsens_bench/measures/finite.py
-- computes the same and says how.

-- One row for each image, condition and measure (`hit` or `changed`) of an entrant. `trials` are those that were
-- evaluated; a condition has as many as the largest trial says.
CREATE OR REPLACE VIEW image_shares AS
WITH undegraded AS (
    SELECT protocol, dataset, model, defense, image_id, prediction AS reference
    FROM protocol_predictions
    WHERE degradation = 'none' AND level = 0 AND trial = 0
),
each_image AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level, image_id,
        count(*) AS trials, max(trial) + 1 AS largest_trial, avg((prediction = label)::DOUBLE) AS hit,
        CASE WHEN degradation <> 'none' THEN avg((prediction <> reference)::DOUBLE) END AS changed
    FROM protocol_predictions LEFT JOIN undegraded USING (protocol, dataset, model, defense, image_id)
    GROUP BY protocol, dataset, model, defense, degradation, level, image_id
)
UNPIVOT each_image ON hit, changed INTO NAME measure VALUE share;

-- For each condition and measure of an entrant: the mean over images, the part of the entrant's images that have it, and
-- the variance of one trial within an image, which counts as 0 under a condition of one trial.
CREATE OR REPLACE VIEW image_condition_shares AS
WITH images AS (
    SELECT protocol, dataset, model, defense, count(DISTINCT image_id) AS all_images FROM image_shares GROUP BY ALL
),
summed AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level, measure,
        avg(share) AS value, var_samp(share) AS variance, count(*) AS n_images, max(largest_trial) AS n_trials,
        sum(trials) AS cells, sum(1 / trials) AS inverse_trials,
        CASE
            WHEN max(largest_trial) = 1 THEN 0
            WHEN sum(trials) = count(*) THEN avg(share) * (1 - avg(share))
            ELSE sum(trials * share * (1 - share)) / sum(trials - 1)
        END AS within
    FROM image_shares
    GROUP BY protocol, dataset, model, defense, degradation, level, measure
),
parts AS (
    SELECT *, n_images / all_images AS part FROM summed JOIN images USING (protocol, dataset, model, defense)
),
varied AS (
    SELECT *, (1 - part) * coalesce(variance, 0) / n_images + part * within * inverse_trials / n_images ^ 2 AS error,
        (1 - part) / n_images + CASE WHEN n_trials > 1 THEN part / cells ELSE 0 END AS inverse_size
    FROM parts
)
SELECT *,
    CASE
        WHEN error >= 1e-24 AND value > 0 AND value < 1 THEN greatest(value * (1 - value) / error, 1)
        WHEN inverse_size = 0 THEN 'infinity'::DOUBLE
        ELSE 1 / inverse_size
    END AS size
FROM varied;

CREATE OR REPLACE VIEW accuracy_of_images AS
SELECT protocol, dataset, model, architecture, defense, degradation, level, value,
    wilson_low(value, size) AS low, wilson_high(value, size) AS high, n_images, n_trials, part
FROM image_condition_shares WHERE measure = 'hit';

CREATE OR REPLACE VIEW label_change_of_images AS
SELECT protocol, dataset, model, architecture, defense, degradation, level, value,
    wilson_low(value, size) AS low, wilson_high(value, size) AS high, n_images, n_trials, part
FROM image_condition_shares WHERE measure = 'changed';

-- One row for each protocol, dataset, model and defense: the means of the view `leaderboard` with their intervals.
CREATE OR REPLACE VIEW leaderboard_of_images AS
WITH conditions AS MATERIALIZED (
    SELECT protocol, dataset, model, architecture, defense, degradation, level, measure, all_images, value, part, within,
        1 / count(*) OVER (PARTITION BY protocol, dataset, model, defense, measure, degradation) AS of_level
    FROM image_condition_shares WHERE degradation <> 'none'
),
weighted AS (
    SELECT * EXCLUDE (of_level), of_level / sum(of_level) OVER (PARTITION BY protocol, dataset, model, defense, measure) AS weight
    FROM conditions
),
moved AS (
    SELECT protocol, dataset, model, defense, measure, image_id, c.part,
        weight / c.part * (share - value) AS moves, c.part * (weight / c.part) ^ 2 * within / trials AS noise
    FROM image_shares JOIN weighted AS c USING (protocol, dataset, model, defense, degradation, level, measure)
),
of_image AS (
    SELECT protocol, dataset, model, defense, measure, image_id, sum(noise) AS noise, count(*) AS conditions,
        sum((1 - part) * moves ^ 2) AS squares, sum((1 - part) * moves) AS sums, sum(1 - part) AS parts, avg(moves) AS middle
    FROM moved GROUP BY ALL
),
varied AS (
    SELECT protocol, dataset, model, defense, measure,
        sum(noise + CASE
            WHEN conditions = 1 THEN squares
            ELSE conditions / (conditions - 1) * greatest(squares - 2 * middle * sums + middle ^ 2 * parts, 0)
        END) AS total
    FROM of_image GROUP BY ALL
),
means AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, measure, max(all_images) AS n_images,
        sum(weight * value) AS value, count(*) AS n_conditions
    FROM weighted GROUP BY protocol, dataset, model, defense, measure
),
bounded AS (
    SELECT means.*, greatest(0, value - 1.959963984540054 * sqrt(total) / n_images) AS low,
        least(1, value + 1.959963984540054 * sqrt(total) / n_images) AS high
    FROM means JOIN varied USING (protocol, dataset, model, defense, measure)
)
SELECT protocol, dataset, model, architecture, defense,
    max(value) FILTER (measure = 'hit') AS mean_degraded_accuracy,
    max(low) FILTER (measure = 'hit') AS mean_degraded_accuracy_low,
    max(high) FILTER (measure = 'hit') AS mean_degraded_accuracy_high,
    max(value) FILTER (measure = 'changed') AS mean_label_change,
    max(low) FILTER (measure = 'changed') AS mean_label_change_low,
    max(high) FILTER (measure = 'changed') AS mean_label_change_high,
    max(n_images) AS n_images, max(n_conditions) AS n_conditions
FROM bounded GROUP BY protocol, dataset, model, architecture, defense;
