-- name: sensitivity_views
-- Macros and views of predicted and measured sensitivity (section 4 of the paper). f is an output of the network for
-- the class that it predicted for the undegraded image: 'logit', 'probability', or 'margin' (the logit of this class
-- minus the largest other logit).

-- The mean and the variance of the change of f, to first order, from the level-free columns of `sensitivity`. The
-- paper's V is variance + mean²; for Gaussian noise √V is for example sqrt(gaussian_variance(4, grad_sq_norm)).
CREATE OR REPLACE MACRO gaussian_variance(sigma, grad_sq_norm) AS sigma ^ 2 * grad_sq_norm;
CREATE OR REPLACE MACRO pepper_mean(p, pepper_sum) AS p * pepper_sum;
CREATE OR REPLACE MACRO pepper_variance(p, pepper_sq_norm) AS p * (1 - p) * pepper_sq_norm;
CREATE OR REPLACE MACRO translation_variance(sigma, shift_x, shift_y) AS sigma ^ 2 * (shift_x ^ 2 + shift_y ^ 2);
-- The same for the degradation that is named.
CREATE OR REPLACE MACRO first_order_mean(degradation, level, pepper_sum) AS
    CASE degradation WHEN 'pepper_pixel' THEN pepper_mean(level, pepper_sum) ELSE 0 END;
CREATE OR REPLACE MACRO first_order_variance(degradation, level, grad_sq_norm, pepper_sq_norm, shift_x, shift_y) AS
    CASE degradation
        WHEN 'gaussian_rgb' THEN gaussian_variance(level, grad_sq_norm)
        WHEN 'pepper_pixel' THEN pepper_variance(level, pepper_sq_norm)
        ELSE translation_variance(level, shift_x, shift_y)
    END;
-- The distribution function of the standard normal (Abramowitz & Stegun 26.2.17, whose error is below 7.5e-8).
CREATE OR REPLACE MACRO normal_tail(z, t) AS
    exp(-z * z / 2) * 0.3989422804014327 * t
    * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
CREATE OR REPLACE MACRO normal_cdf(z) AS
    CASE
        WHEN z >= 0 THEN 1 - normal_tail(z, 1 / (1 + 0.2316419 * z))
        ELSE normal_tail(z, 1 / (1 - 0.2316419 * z))
    END;
-- Φ(−(m + mean) / deviation): the probability that the margin m becomes negative.
CREATE OR REPLACE MACRO label_change_probability(margin, mean, deviation) AS
    CASE
        WHEN deviation > 0 THEN normal_cdf(greatest(-40, least(40, -(margin + mean) / deviation)))
        ELSE (margin + mean < 0)::DOUBLE
    END;

-- The measured change of each output over the trials of an image: its standard deviation, its mean, and √(mean Δf²),
-- which includes the mean shift.
CREATE OR REPLACE VIEW empirical_sensitivity AS
WITH changes AS (
    SELECT p.protocol, p.dataset, p.image_id, p.model, p.defense, p.degradation, p.level,
        unnest(['logit', 'probability']) AS output,
        unnest([p.reference_logit, p.reference_probability])::DOUBLE AS f,
        unnest([u.reference_logit, u.reference_probability])::DOUBLE AS undegraded
    FROM protocol_predictions AS p
    LEFT JOIN (
        FROM protocol_predictions WHERE degradation = 'none' AND level = 0 AND trial = 0
    ) AS u USING (protocol, dataset, image_id, model, defense)
    WHERE p.degradation <> 'none'
)
SELECT protocol, dataset, image_id, model, defense, degradation, level, output,
    stddev_samp(f) AS deviation, avg(f - undegraded) AS mean_change, sqrt(avg((f - undegraded) ^ 2)) AS rms_change,
    count(*) AS n_trials
FROM changes
GROUP BY ALL
HAVING count(*) > 1;

-- The scores with their protocol, each once: a resumed run may have scored an image again.
CREATE OR REPLACE VIEW protocol_sensitivity AS
SELECT DISTINCT ON (protocol, dataset, image_id, model, defense, output) runs.protocol, sensitivity.*
FROM sensitivity JOIN runs USING (run_id);

-- What each predictor expects under each evaluated condition. Two predictors need only `sensitivity`: 'gradient', to
-- first order, and 'paper', whose V adds the mean shift of pepper noise to the variance (equation 4). The answers of
-- the others come from `sensitivity_predictions`.
CREATE OR REPLACE VIEW predicted_change AS
WITH conditions AS (
    SELECT DISTINCT protocol, dataset, degradation, level
    FROM protocol_predictions
    WHERE degradation IN ('gaussian_rgb', 'pepper_pixel', 'translation')
),
expected AS (
    SELECT s.*, c.degradation, c.level, first_order_mean(c.degradation, c.level, s.pepper_sum) AS mean_change,
        first_order_variance(c.degradation, c.level, s.grad_sq_norm, s.pepper_sq_norm, s.shift_x, s.shift_y) AS variance
    FROM protocol_sensitivity AS s JOIN conditions AS c USING (protocol, dataset)
)
SELECT protocol, dataset, image_id, model, defense, output, 'gradient' AS predictor, 2 AS passes, degradation, level,
    mean_change, sqrt(variance) AS deviation
FROM expected
UNION ALL BY NAME
SELECT protocol, dataset, image_id, model, defense, output, 'paper' AS predictor, 2 AS passes, degradation, level,
    0 AS mean_change, sqrt(variance + mean_change ^ 2) AS deviation
FROM expected
UNION ALL BY NAME
SELECT runs.protocol, p.dataset, p.image_id, p.model, p.defense, p.output, p.predictor, p.passes,
    p.degradation, p.level, p.mean_change, p.deviation
FROM sensitivity_predictions AS p JOIN runs USING (run_id);

-- The predicted and the measured change of each image, side by side.
CREATE OR REPLACE VIEW sensitivity_pairs AS
SELECT protocol, dataset, model, defense, output, predictor, passes, degradation, level, image_id,
    p.deviation AS predicted_deviation, sqrt(p.mean_change ^ 2 + p.deviation ^ 2) AS predicted_rms,
    m.deviation AS deviation, m.rms_change AS rms, m.n_trials
FROM predicted_change AS p
JOIN empirical_sensitivity AS m USING (protocol, dataset, image_id, model, defense, output, degradation, level);

-- Confidence bounds of a correlation by Fisher's transformation. For a rank correlation its variance is (1 + r²/2)/(n −
-- 3) (Bonett & Wright 2000). r is kept just below ±1, where the transformation is infinite.
CREATE OR REPLACE MACRO fisher(r, n, sign, spread) AS
    tanh(atanh(greatest(-0.9999999, least(0.9999999, r))) + sign * 1.959963984540054 * sqrt(spread / (n - 3)));
CREATE OR REPLACE MACRO correlation_bound(r, n, sign, spread) AS
    CASE
        WHEN n <= 3 OR r IS NULL OR isnan(r) THEN NULL
        WHEN sign > 0 THEN greatest(r, fisher(r, n, sign, spread))
        ELSE least(r, fisher(r, n, sign, spread))
    END;
-- The standard error of the slope of y = slope·x, which holds for residuals of any variance (White 1980).
CREATE OR REPLACE MACRO slope_error(slope, n, xxyy, xxxy, xxxx, xx) AS
    sqrt(greatest(0, xxyy - 2 * slope * xxxy + slope ^ 2 * xxxx) * n / greatest(n - 1, 1)) / xx;

-- How well each predictor's deviation agrees with the standard deviation over trials (and `*_rms`: √(mean² +
-- deviation²) with √(mean Δf²)), over images. Ranks are average ranks, as Spearman's correlation wants them for ties.
CREATE OR REPLACE VIEW predictor_check AS
WITH ranked AS (
    SELECT *,
        rank() OVER (alike ORDER BY predicted_deviation) + (count(*) OVER (alike_1) - 1) / 2 AS rank_1,
        rank() OVER (alike ORDER BY deviation) + (count(*) OVER (alike_2) - 1) / 2 AS rank_2,
        rank() OVER (alike ORDER BY predicted_rms) + (count(*) OVER (alike_3) - 1) / 2 AS rank_3,
        rank() OVER (alike ORDER BY rms) + (count(*) OVER (alike_4) - 1) / 2 AS rank_4
    FROM sensitivity_pairs
    WINDOW
        alike AS (PARTITION BY protocol, dataset, model, defense, output, predictor, degradation, level),
        alike_1 AS (PARTITION BY protocol, dataset, model, defense, output, predictor, degradation, level, predicted_deviation),
        alike_2 AS (PARTITION BY protocol, dataset, model, defense, output, predictor, degradation, level, deviation),
        alike_3 AS (PARTITION BY protocol, dataset, model, defense, output, predictor, degradation, level, predicted_rms),
        alike_4 AS (PARTITION BY protocol, dataset, model, defense, output, predictor, degradation, level, rms)
),
summed AS (
    SELECT protocol, dataset, model, defense, output, predictor, max(passes) AS passes, degradation, level,
        corr(predicted_deviation, deviation) AS pearson, corr(rank_1, rank_2) AS spearman,
        corr(predicted_rms, rms) AS pearson_rms, corr(rank_3, rank_4) AS spearman_rms,
        sum(predicted_deviation * deviation) / nullif(sum(predicted_deviation ^ 2), 0) AS slope,
        slope_error(slope, count(*), sum(predicted_deviation ^ 2 * deviation ^ 2),
            sum(predicted_deviation ^ 3 * deviation), sum(predicted_deviation ^ 4), nullif(sum(predicted_deviation ^ 2), 0)
        ) AS error,
        count(*) AS n, max(n_trials) AS n_trials
    FROM ranked
    GROUP BY ALL
)
SELECT * EXCLUDE (error),
    correlation_bound(pearson, n, -1, 1) AS pearson_low, correlation_bound(pearson, n, 1, 1) AS pearson_high,
    correlation_bound(spearman, n, -1, 1 + spearman ^ 2 / 2) AS spearman_low,
    correlation_bound(spearman, n, 1, 1 + spearman ^ 2 / 2) AS spearman_high,
    slope - 1.959963984540054 * error AS slope_low, slope + 1.959963984540054 * error AS slope_high
FROM summed;

-- The agreement that figure 6 of the paper shows: √V against the standard deviation over trials (`*_rms`: against
-- √(mean Δf²)).
CREATE OR REPLACE VIEW sensitivity_check AS
SELECT * EXCLUDE (predictor, passes) FROM predictor_check WHERE predictor = 'paper';

-- An estimate of the correlation that a perfect predictor could reach with so few trials. The logarithm of the standard
-- deviation of n normal values has the variance ψ'((n − 1)/2)/4 about the true value (Bartlett & Kendall 1946); the
-- rest of the variance over images belongs to the images. Outputs with heavier tails vary more, and then the true
-- ceiling is lower.
CREATE OR REPLACE MACRO trigamma(x) AS 1 / x + 1 / (2 * x ^ 2) + 1 / (6 * x ^ 3) - 1 / (30 * x ^ 5) + 1 / (42 * x ^ 7);
CREATE OR REPLACE VIEW trial_ceiling AS
SELECT protocol, dataset, model, defense, output, degradation, level,
    sqrt(greatest(0, 1 - avg(trigamma((n_trials - 1) / 2) / 4) / nullif(var_samp(ln(deviation)), 0))) AS ceiling,
    count(*) AS n, max(n_trials) AS n_trials
FROM empirical_sensitivity
WHERE deviation > 0 AND n_trials > 2
GROUP BY ALL
HAVING count(*) > 2;

-- The label change that each predictor expects for an image under each evaluated condition, whether or not the image has
-- trials of it.
CREATE OR REPLACE VIEW expected_label_change AS
SELECT protocol, dataset, image_id, model, defense, c.predictor, c.passes, degradation, level,
    label_change_probability(s.margin, c.mean_change, c.deviation) AS predicted, s.margin, s.entropy
FROM predicted_change AS c
JOIN protocol_sensitivity AS s USING (protocol, dataset, image_id, model, defense, output)
WHERE output = 'margin';

-- The same beside the measured p_Δ, where there are trials, and beside other quantities that may predict it.
CREATE OR REPLACE VIEW predicted_label_change AS
WITH undegraded AS (
    SELECT protocol, dataset, image_id, model, defense, prediction AS reference, confidence
    FROM protocol_predictions
    WHERE degradation = 'none' AND level = 0 AND trial = 0
),
measured AS (
    SELECT protocol, dataset, image_id, model, defense, degradation, level, any_value(undegraded.confidence) AS confidence,
        avg((prediction <> reference)::DOUBLE) AS measured, count(*) AS n_trials
    FROM protocol_predictions JOIN undegraded USING (protocol, dataset, image_id, model, defense)
    GROUP BY protocol, dataset, image_id, model, defense, degradation, level
)
SELECT protocol, dataset, image_id, model, defense, e.predictor, e.passes, degradation, level,
    e.predicted, m.measured, m.n_trials, e.margin, e.entropy, m.confidence
FROM expected_label_change AS e
JOIN measured AS m USING (protocol, dataset, image_id, model, defense, degradation, level);

-- The p_Δ that each predictor expects of a network, averaged over its scored images, beside the measured one. low and
-- high are the 95 % interval of the mean over images. The predictor 'gradient' has a value at every level of the paper
-- and at every level that was evaluated, also for networks without a degraded pass; the measured columns are then NULL.
CREATE OR REPLACE VIEW predicted_curve AS
WITH levels AS (
    SELECT protocol, dataset, degradation, unnest(levels) AS level
    FROM (SELECT DISTINCT protocol, dataset FROM protocol_sensitivity)
    CROSS JOIN (
        VALUES
            ('gaussian_rgb', [1.0::DOUBLE, 2, 4, 8, 16, 32, 64]),
            ('pepper_pixel', [0.001::DOUBLE, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32]),
            ('translation', [0.5::DOUBLE, 1, 2, 4, 8, 16])
    ) AS paper(degradation, levels)
    UNION
    SELECT protocol, dataset, degradation, level FROM protocol_predictions
    WHERE degradation IN ('gaussian_rgb', 'pepper_pixel', 'translation')
),
expected AS (
    SELECT protocol, dataset, model, defense, 'gradient' AS predictor, 2 AS passes, degradation, level,
        label_change_probability(margin, first_order_mean(degradation, level, pepper_sum),
            sqrt(first_order_variance(degradation, level, grad_sq_norm, pepper_sq_norm, shift_x, shift_y))) AS predicted
    FROM protocol_sensitivity JOIN levels USING (protocol, dataset)
    WHERE output = 'margin'
    UNION ALL BY NAME
    SELECT protocol, dataset, model, defense, predictor, passes, degradation, level, predicted
    FROM expected_label_change
    WHERE predictor NOT IN ('gradient', 'paper')
),
means AS (
    SELECT protocol, dataset, model, defense, predictor, max(passes) AS passes, degradation, level,
        avg(predicted) AS value, count(*) AS n_images,
        1.959963984540054 * stddev_samp(predicted) / sqrt(count(*)) AS half
    FROM expected
    GROUP BY ALL
)
SELECT m.* EXCLUDE (half), greatest(0, m.value - half) AS low, least(1, m.value + half) AS high,
    c.value AS measured, c.low AS measured_low, c.high AS measured_high, m.value - c.value AS error
FROM means AS m LEFT JOIN label_change AS c USING (protocol, dataset, model, defense, degradation, level);
