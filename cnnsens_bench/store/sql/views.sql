-- name: views
-- The views that answer the most common questions. Every view has the column `protocol`, so that rows made under
-- different protocols are never mixed.

-- The predictions with their protocol: the other views need not repeat this join.
CREATE OR REPLACE VIEW protocol_predictions AS
SELECT runs.protocol, predictions.*
FROM predictions JOIN runs USING (run_id);

-- The interval of a share of (image, trial) that are right or changed. Trials are nested in images, so the interval is
-- that of the mean of the per-image means m_i. Its variance var(m_i)/n gives an effective sample size (Kish's design
-- effect; Korn & Graubard 1998), which is at least 1 and at most n_images·n_trials, and this size gives the 95 % Wilson
-- score interval. A variance below 1e-24 counts as zero: it comes from rounding (the average of equal thirds is not
-- exactly a third).
CREATE OR REPLACE MACRO effective_size(share, variance, n_images, n_trials) AS
    CASE
        WHEN variance IS NULL OR variance < 1e-24 OR share <= 0 OR share >= 1 THEN n_images
        ELSE least(greatest(share * (1 - share) / variance, 1), n_images * n_trials)
    END;
CREATE OR REPLACE MACRO wilson_centre(share, n) AS (share + 1.959963984540054 ^ 2 / (2 * n)) / (1 + 1.959963984540054 ^ 2 / n);
CREATE OR REPLACE MACRO wilson_half(share, n) AS
    1.959963984540054 * sqrt(share * (1 - share) / n + 1.959963984540054 ^ 2 / (4 * n * n)) / (1 + 1.959963984540054 ^ 2 / n);
-- For a share of 0 or 1 the bound is the share itself, which rounding could otherwise miss.
CREATE OR REPLACE MACRO wilson_low(share, n) AS greatest(0, least(share, wilson_centre(share, n) - wilson_half(share, n)));
CREATE OR REPLACE MACRO wilson_high(share, n) AS least(1, greatest(share, wilson_centre(share, n) + wilson_half(share, n)));

-- Both shares of every condition from one scan: how many are right (`accuracy`), and how many have changed
-- (`label_change`, among the images that have an undegraded prediction). Entrants are numbered first, so that ten
-- million rows are grouped and joined by a narrow key, which halves the time.
CREATE OR REPLACE VIEW condition_shares AS
WITH entrants AS MATERIALIZED (
    SELECT run_id, protocol, dataset, model, architecture, defense,
        dense_rank() OVER (ORDER BY protocol, dataset, model, defense)::INTEGER AS entrant
    FROM (SELECT run_id, dataset, model, defense, max(architecture) AS architecture FROM predictions GROUP BY ALL)
    JOIN runs USING (run_id)
),
numbered AS NOT MATERIALIZED (
    SELECT entrant, degradation, level, trial, image_id, label, prediction
    FROM predictions JOIN entrants USING (run_id, dataset, model, defense)
),
undegraded AS (
    SELECT entrant, image_id, prediction AS reference
    FROM numbered
    WHERE degradation = 'none' AND level = 0 AND trial = 0
),
per_image AS (
    SELECT entrant, degradation, level, image_id, count(*) AS trials, avg((prediction = label)::DOUBLE) AS hit,
        CASE WHEN degradation <> 'none' THEN avg((prediction <> reference)::DOUBLE) END AS changed
    FROM numbered LEFT JOIN undegraded USING (entrant, image_id)
    GROUP BY entrant, degradation, level, image_id
),
summed AS (
    SELECT entrant, degradation, level, avg(hit) AS accuracy, count(*) AS n_images, max(trials) AS n_trials,
        effective_size(avg(hit), var_samp(hit) / count(*), count(*), max(trials)) AS size,
        avg(changed) AS label_change, count(changed) AS changed_images,
        max(CASE WHEN changed IS NOT NULL THEN trials END) AS changed_trials,
        effective_size(avg(changed), var_samp(changed) / count(changed), count(changed), changed_trials) AS changed_size
    FROM per_image
    GROUP BY entrant, degradation, level
)
SELECT * EXCLUDE (entrant)
FROM summed JOIN (
    SELECT entrant, protocol, dataset, model, max(architecture) AS architecture, defense FROM entrants GROUP BY ALL
) USING (entrant);

CREATE OR REPLACE VIEW accuracy AS
SELECT protocol, dataset, model, architecture, defense, degradation, level, accuracy AS value,
    wilson_low(value, size) AS low, wilson_high(value, size) AS high, n_images, n_trials
FROM condition_shares;

CREATE OR REPLACE VIEW label_change AS
SELECT protocol, dataset, model, architecture, defense, degradation, level, label_change AS value,
    wilson_low(value, changed_size) AS low, wilson_high(value, changed_size) AS high,
    changed_images AS n_images, changed_trials AS n_trials
FROM condition_shares
WHERE changed_images > 0;

-- One row for each protocol, dataset, model and defense. Means are taken over the levels of a degradation, then over
-- degradations. They can only be compared between entrants that have the same conditions; `n_conditions` counts them,
-- without the undegraded one.
CREATE OR REPLACE VIEW leaderboard AS
WITH conditions AS MATERIALIZED (
    FROM condition_shares
),
means AS (
    SELECT protocol, dataset, model, defense,
        avg(by_degradation) AS mean_degraded_accuracy, avg(changed) AS mean_label_change
    FROM (
        SELECT protocol, dataset, model, defense, degradation,
            avg(accuracy) AS by_degradation, avg(label_change) AS changed
        FROM conditions WHERE degradation <> 'none' GROUP BY ALL
    )
    GROUP BY ALL
),
-- Of conditions with equal accuracies the first degradation is the worst, with its lowest level. Equal means differ by
-- rounding from query to query, because threads add the shares of images in any order.
degraded AS (
    SELECT *, accuracy > min(accuracy) OVER (PARTITION BY protocol, dataset, model, defense) + 1e-9 AS better
    FROM conditions WHERE degradation <> 'none'
),
worst AS (
    SELECT protocol, dataset, model, defense,
        arg_min(degradation, (better, degradation, level)) AS worst_degradation,
        arg_min(level, (better, degradation, level)) AS worst_level,
        min(accuracy) AS worst_accuracy,
        count(*) AS n_conditions
    FROM degraded GROUP BY ALL
),
-- Where several devices computed, the speed is that of the device with the most images.
by_device AS (
    SELECT protocol, dataset, model, defense, device, threads, sum(images) AS images, sum(seconds) AS seconds
    FROM speed JOIN runs USING (run_id)
    GROUP BY ALL
),
timed AS (
    SELECT protocol, dataset, model, defense, device, threads, images / nullif(seconds, 0) AS images_per_second
    FROM by_device
    QUALIFY row_number() OVER (PARTITION BY protocol, dataset, model, defense ORDER BY images DESC, device, threads) = 1
)
SELECT a.protocol, a.dataset, a.model, a.architecture, a.defense, m.num_parameters, a.n_images,
    a.accuracy, wilson_low(a.accuracy, a.size) AS accuracy_low, wilson_high(a.accuracy, a.size) AS accuracy_high,
    means.mean_degraded_accuracy, means.mean_label_change,
    worst.worst_degradation, worst.worst_level, worst.worst_accuracy,
    timed.images_per_second, timed.device, timed.threads,
    coalesce(worst.n_conditions, 0) AS n_conditions
FROM conditions AS a
LEFT JOIN models AS m USING (dataset, model, defense)
LEFT JOIN means USING (protocol, dataset, model, defense)
LEFT JOIN worst USING (protocol, dataset, model, defense)
LEFT JOIN timed USING (protocol, dataset, model, defense)
WHERE a.degradation = 'none';

-- The share of its degraded cells that each entrant was evaluated on: below 1 where `budget` is, and in unfinished runs.
-- A cell is a degradation, level and trial; an image has as many trials under a condition as the largest trial says.
CREATE OR REPLACE VIEW evaluated_share AS
WITH counted AS (
    SELECT protocol, dataset, model, defense, degradation, level, count(*) AS cells, max(trial) + 1 AS trials
    FROM protocol_predictions GROUP BY ALL
),
summed AS (
    SELECT protocol, dataset, model, defense,
        max(cells) FILTER (degradation = 'none') AS n_images,
        coalesce(sum(cells) FILTER (degradation <> 'none'), 0)::BIGINT AS cells,
        coalesce(sum(trials) FILTER (degradation <> 'none'), 0)::BIGINT AS cells_per_image
    FROM counted GROUP BY ALL
)
SELECT *, CASE WHEN n_images * cells_per_image > 0 THEN least(1, cells / (n_images * cells_per_image)) END AS share
FROM summed;

-- What a defense gains over the same model without one: the accuracy with the defense minus the accuracy with `none`,
-- paired by image and trial. The degradation `none` is the undegraded image, where a gain below 0 is the cost of the
-- defense. The interval is the one that Agresti & Min (2005) give for per-image differences d. It adds one image that
-- counts +1/2 and -1/2 and one image with the difference 0 to the n images, so that it has a width even where no image
-- differs.
CREATE OR REPLACE VIEW defense_gain AS
WITH undefended AS (
    SELECT protocol, dataset, model, degradation, level, trial, image_id, (prediction = label)::INT AS hit
    FROM protocol_predictions
    WHERE defense = 'none'
),
per_image AS (
    SELECT protocol, dataset, model, architecture, defense, degradation, level, image_id,
        avg((prediction = label)::INT - hit) AS difference, count(*) AS trials
    FROM protocol_predictions JOIN undefended USING (protocol, dataset, model, degradation, level, trial, image_id)
    WHERE defense <> 'none'
    GROUP BY ALL
),
summed AS (
    SELECT protocol, dataset, model, architecture, defense, degradation, level,
        avg(difference) AS gain, count(*) AS n_images, max(trials) AS n_trials,
        sum(difference) / (count(*) + 2) AS centre,
        1.959963984540054 * sqrt(((sum(difference ^ 2) + 1) / (count(*) + 2) - centre ^ 2) / (count(*) + 2)) AS half
    FROM per_image
    GROUP BY ALL
)
SELECT protocol, dataset, model, architecture, defense, degradation, level, gain,
    greatest(-1, least(gain, centre - half)) AS low, least(1, greatest(gain, centre + half)) AS high,
    0 - max(CASE WHEN degradation = 'none' THEN gain END) OVER (PARTITION BY protocol, dataset, model, defense)
        AS undegraded_cost,
    n_images, n_trials
FROM summed;

-- mCE, relative mCE and mean flip rate (Hendrycks & Dietterich 2019) relative to a model without a defense, as in
-- cnnsens_bench/measures: ratios of sums over the levels that both entrants have, then means over degradations.
-- There is a row for every entrant of each data set and protocol that includes the reference model; `degradations`
-- counts the degradations that mCE averages over. Example: FROM mce('torchvision/alexnet')
-- 'published:alexnet' takes the error rates of AlexNet on ImageNet-C that the paper states, for every data set. They are of
-- `common:fog` and of `stored:fog`, of which the latter counts alone where an entrant has both. Relative mCE and flip rate
-- are NULL then.
CREATE OR REPLACE MACRO mce(reference_model) AS TABLE
WITH conditions AS MATERIALIZED (
    SELECT protocol, dataset, model, defense, degradation, level, 1 - accuracy AS error, label_change AS change,
        max(CASE WHEN degradation = 'none' THEN accuracy END) OVER (PARTITION BY protocol, dataset, model, defense)
            - accuracy AS excess
    FROM condition_shares
),
-- The same numbers as in cnnsens_bench/measures/published.py, which names their source: means over five severities.
published AS (
    SELECT 'published:alexnet' AS reference, prefix || corruption AS degradation,
        unnest([1.0, 2.0, 3.0, 4.0, 5.0]::DOUBLE[]) AS level, error::DOUBLE AS error
    FROM (VALUES
        ('gaussian_noise', 0.886428), ('shot_noise', 0.894468), ('impulse_noise', 0.922640),
        ('defocus_blur', 0.819880), ('glass_blur', 0.826268), ('motion_blur', 0.785948), ('zoom_blur', 0.798360),
        ('snow', 0.866816), ('frost', 0.826572), ('fog', 0.819324), ('brightness', 0.564592),
        ('contrast', 0.853204), ('elastic_transform', 0.646056), ('pixelate', 0.717840),
        ('jpeg_compression', 0.606500)
    ) AS rates(corruption, error), (VALUES ('common:'), ('stored:')) AS prefixes(prefix)
),
of_reference AS (
    SELECT protocol, dataset, degradation, level, error, change, excess
    FROM conditions WHERE model = reference_model AND defense = 'none'
    UNION ALL
    SELECT protocol, dataset, degradation, level, error, NULL AS change, NULL AS excess
    FROM (SELECT DISTINCT protocol, dataset FROM conditions), published
    WHERE reference = reference_model
),
summed AS (
    SELECT protocol, dataset, own.model, own.defense, degradation,
        sum(own.error) AS error, sum(r.error) AS reference_error,
        sum(own.excess) AS excess, sum(r.excess) AS reference_excess,
        sum(own.change) FILTER (r.change IS NOT NULL) AS change,
        sum(r.change) FILTER (own.change IS NOT NULL) AS reference_change
    FROM conditions AS own JOIN of_reference AS r USING (protocol, dataset, degradation, level)
    WHERE degradation <> 'none'
    GROUP BY ALL
    -- A published rate is the mean over five severities: a degradation without one of them does not count.
    HAVING count(*) = 5 OR NOT starts_with(reference_model, 'published:')
),
counted AS (
    SELECT * FROM summed
    QUALIFY NOT starts_with(reference_model, 'published:') OR 1 = row_number() OVER (
        PARTITION BY protocol, dataset, model, defense, split_part(degradation, ':', 2) ORDER BY degradation DESC
    )
),
ratios AS (
    SELECT protocol, dataset, model, defense,
        CASE WHEN reference_error > 1e-6 THEN error / reference_error END AS mce,
        CASE WHEN reference_excess > 1e-6 THEN excess / reference_excess END AS relative_mce,
        CASE WHEN reference_change > 1e-6 THEN change / reference_change END AS flip_rate
    FROM counted
)
SELECT protocol, dataset, model, defense,
    avg(mce) AS mce, avg(relative_mce) AS relative_mce, avg(flip_rate) AS mean_flip_rate, count(mce) AS degradations
FROM (SELECT DISTINCT protocol, dataset, model, defense FROM conditions)
SEMI JOIN of_reference USING (protocol, dataset)
LEFT JOIN ratios USING (protocol, dataset, model, defense)
GROUP BY ALL
ORDER BY ALL;

-- How often every entrant predicts the same label as a model without a defense, under the same draw: the share of
-- (image, trial), with intervals as those of `label_change`. An exported or quantised network is held against the network
-- that it was made from. Example: FROM agreement('timm/resnet18')
CREATE OR REPLACE MACRO agreement(reference_model) AS TABLE
WITH of_reference AS (
    SELECT protocol, dataset, image_id, degradation, level, trial, prediction AS reference
    FROM protocol_predictions
    WHERE model = reference_model AND defense = 'none'
),
per_image AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level, image_id,
        avg((prediction = reference)::DOUBLE) AS same, count(*) AS trials
    FROM protocol_predictions
    JOIN of_reference USING (protocol, dataset, image_id, degradation, level, trial)
    WHERE model <> reference_model OR defense <> 'none'
    GROUP BY protocol, dataset, model, defense, degradation, level, image_id
),
summed AS (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense, degradation, level,
        avg(same) AS value, count(*) AS n_images, max(trials) AS n_trials,
        effective_size(avg(same), var_samp(same) / count(*), count(*), max(trials)) AS size
    FROM per_image
    GROUP BY protocol, dataset, model, defense, degradation, level
)
SELECT protocol, dataset, model, architecture, defense, degradation, level, value,
    wilson_low(value, size) AS low, wilson_high(value, size) AS high, n_images, n_trials
FROM summed
ORDER BY ALL;
