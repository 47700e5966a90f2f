-- name: failure_point_views
-- Where curves over levels and the labels of images give way; cnnsens_bench/measures/failure_points.py has the same
-- order and scale of levels. Levels are `falling` where stronger ones are lower numbers: negative ones, and those of
-- jpeg and shot_noise. A degradation with negative and positive levels has both directions. A member of a chain that is
-- swept has no level in brackets. Level 0 stands for the undegraded image, or for a degradation without levels.
CREATE OR REPLACE MACRO level_direction(degradation, level) AS
    CASE
        WHEN level < 0 OR list_has_any(string_split(degradation, ' + '), ['jpeg', 'shot_noise']) THEN 'falling'
        ELSE 'rising'
    END;
CREATE OR REPLACE MACRO level_strength(direction, level) AS CASE direction WHEN 'falling' THEN -level ELSE level END;

-- For each image and degradation: from which level on the label is wrong, or differs from that of the undegraded image,
-- in at least half of the trials. `wrong_low` is the first level that is wrong or was not evaluated, `wrong_high` the
-- first one that is wrong; the image's failure point lies between them. They are equal where all levels up to it were
-- evaluated. Both are NULL where all levels are right, and `wrong_high` alone where all evaluated ones are. An image
-- without any level of a degradation has no row.
CREATE OR REPLACE VIEW failure_points AS
WITH entrants AS MATERIALIZED (
    SELECT run_id, protocol, dataset, model, architecture, defense,
        dense_rank() OVER (ORDER BY protocol, dataset, model, defense)::INTEGER AS entrant
    FROM (SELECT run_id, dataset, model, defense, max(architecture) AS architecture FROM predictions GROUP BY ALL)
    JOIN runs USING (run_id)
),
undegraded AS (
    SELECT entrant, image_id, prediction AS reference, prediction <> label AS wrong
    FROM predictions JOIN entrants USING (run_id, dataset, model, defense)
    WHERE degradation = 'none' AND level = 0 AND trial = 0
),
evaluated AS (
    SELECT entrant, image_id, degradation, level_direction(degradation, level) AS direction, level,
        avg((prediction <> label)::DOUBLE) >= 0.5 AS wrong, avg((prediction <> reference)::DOUBLE) >= 0.5 AS changed,
        any_value(undegraded.wrong) AS undegraded_wrong
    FROM predictions JOIN entrants USING (run_id, dataset, model, defense)
    LEFT JOIN undegraded USING (entrant, image_id)
    WHERE degradation <> 'none' AND level <> 0
    GROUP BY entrant, image_id, degradation, level
),
swept AS (
    SELECT entrant, degradation, direction, list(level ORDER BY level_strength(direction, level)) AS levels
    FROM (SELECT DISTINCT entrant, degradation, direction, level FROM evaluated)
    GROUP BY ALL
),
ordered AS (
    SELECT *, row_number() OVER (
        PARTITION BY entrant, image_id, degradation, direction ORDER BY level_strength(direction, level)
    ) AS number
    FROM evaluated JOIN swept USING (entrant, degradation, direction)
),
bounds AS (
    SELECT entrant, image_id, degradation, direction, any_value(undegraded_wrong) AS undegraded_wrong,
        coalesce(min(number) FILTER (wrong OR level <> levels[number]), count(*) + 1) AS wrong_number,
        arg_min(level, number) FILTER (wrong) AS wrong_high,
        coalesce(min(number) FILTER (changed OR level <> levels[number]), count(*) + 1) AS changed_number,
        arg_min(level, number) FILTER (changed) AS changed_high,
        count(wrong) > 0 AS labelled, count(changed) > 0 AS comparable, count(*) AS n_evaluated
    FROM ordered
    GROUP BY entrant, image_id, degradation, direction
)
SELECT protocol, dataset, image_id, model, architecture, defense, degradation, direction, undegraded_wrong,
    CASE WHEN labelled THEN levels[wrong_number] END AS wrong_low, wrong_high,
    CASE WHEN comparable THEN levels[changed_number] END AS changed_low, changed_high,
    n_evaluated, len(levels) AS n_levels
FROM bounds JOIN swept USING (entrant, degradation, direction) JOIN (
    SELECT entrant, protocol, dataset, model, max(architecture) AS architecture, defense FROM entrants GROUP BY ALL
) USING (entrant);

-- The number of classes that each entrant chooses among, and the accuracy of guessing. Where `models` does not say the
-- number for this protocol, it is that of the labels of the undegraded images.
CREATE OR REPLACE VIEW entrant_classes AS
WITH counted AS (
    SELECT protocol, dataset, count(DISTINCT label) AS labels
    FROM protocol_predictions WHERE degradation = 'none' GROUP BY ALL
)
SELECT e.protocol, dataset, model, e.architecture, defense,
    coalesce(CASE WHEN maker.protocol = e.protocol THEN m.classes END, labels) AS n_classes, 1 / n_classes AS chance
FROM (
    SELECT protocol, dataset, model, max(architecture) AS architecture, defense
    FROM protocol_predictions GROUP BY protocol, dataset, model, defense
) AS e
LEFT JOIN counted USING (protocol, dataset)
LEFT JOIN models AS m USING (dataset, model, defense)
LEFT JOIN runs AS maker ON maker.run_id = m.trained_by;

-- The level at a position of a curve: see `LevelScale`. Position 0 is the undegraded image, 1 the weakest level, and
-- each further one doubles or halves the level; severities are their own positions.
CREATE OR REPLACE MACRO is_severity(degradation) AS
    regexp_matches(degradation, '(^| \+ )(common|stored):\w+($| \+ )');
CREATE OR REPLACE MACRO undegraded_level(degradation) AS
    CASE
        WHEN list_contains(string_split(degradation, ' + '), 'jpeg') THEN 100
        WHEN list_contains(string_split(degradation, ' + '), 'shot_noise') THEN 'infinity'::DOUBLE
        ELSE 0
    END;
CREATE OR REPLACE MACRO level_at(degradation, weakest, position) AS
    CASE
        WHEN is_severity(degradation) THEN position
        WHEN position > 1 AND undegraded_level(degradation) > 0 THEN weakest * 2 ^ (1 - position)
        WHEN position > 1 THEN weakest * 2 ^ (position - 1)
        WHEN isinf(undegraded_level(degradation)) THEN weakest / position
        ELSE undegraded_level(degradation) + position * (weakest - undegraded_level(degradation))
    END;

-- For each model, defense, degradation and direction, and for two criteria, the level at which its curve first comes to
-- `threshold`: `half_accuracy`, the accuracy halfway between the undegraded one and chance (1 divided by the number of
-- classes), and `label_change`, a p_Δ of 0.1. `level` is NULL where the strongest level does not reach it.
-- `results.failure_points()` in Python adds intervals.
CREATE OR REPLACE VIEW entrant_failure_points AS
WITH conditions AS MATERIALIZED (
    FROM condition_shares
),
undegraded AS (
    SELECT c.protocol, c.dataset, c.model, c.defense, c.accuracy AS undegraded, chance
    FROM conditions AS c JOIN entrant_classes USING (protocol, dataset, model, defense)
    WHERE c.degradation = 'none'
),
curves AS (
    SELECT protocol, dataset, model, architecture, defense, degradation,
        level_direction(degradation, level) AS direction, level, 'half_accuracy' AS criterion, undegraded AS start,
        (undegraded + chance) / 2 AS threshold, threshold AS at_most, accuracy AS value
    FROM conditions JOIN undegraded USING (protocol, dataset, model, defense)
    WHERE degradation <> 'none' AND level <> 0 AND undegraded > chance + 1e-9
    UNION ALL BY NAME
    SELECT protocol, dataset, model, architecture, defense, degradation,
        level_direction(degradation, level) AS direction, level, 'label_change' AS criterion, 1 AS start,
        0.1 AS threshold, 0.9 AS at_most, 1 - label_change AS value
    FROM conditions
    WHERE degradation <> 'none' AND level <> 0 AND changed_images > 0
),
scaled AS (
    SELECT *, level_strength(direction, level) AS strength,
        first_value(level) OVER (curve ORDER BY strength) AS weakest
    FROM curves
    WINDOW curve AS (PARTITION BY protocol, dataset, model, defense, degradation, direction, criterion)
),
placed AS (
    SELECT *, CASE WHEN is_severity(degradation) THEN level ELSE 1 + abs(log2(level / weakest)) END AS position
    FROM scaled
),
crossed AS (
    SELECT *,
        lag(position, 1, 0) OVER (curve ORDER BY strength) AS position_before,
        lag(value, 1, start) OVER (curve ORDER BY strength) AS value_before
    FROM placed
    WINDOW curve AS (PARTITION BY protocol, dataset, model, defense, degradation, direction, criterion)
),
crossings AS (
    SELECT *, position_before + greatest(0, least(1, (value_before - at_most) / nullif(value_before - value, 0)))
        * (position - position_before) AS crossing
    FROM crossed
)
SELECT protocol, dataset, model, architecture, defense, degradation, direction, criterion,
    any_value(threshold) AS threshold,
    level_at(degradation, any_value(weakest), arg_min(crossing, strength) FILTER (value <= at_most + 1e-9)) AS level,
    arg_max(level, strength) AS strongest, count(*) AS n_levels
FROM crossings
GROUP BY protocol, dataset, model, architecture, defense, degradation, direction, criterion;

-- name: entrants_with_classes
FROM entrant_classes ORDER BY ALL;

-- name: shares_of_entrant
-- For each image and condition of an entrant, the shares of its trials that are right, and that have another label than
-- the undegraded image.
WITH own AS (
    FROM protocol_predictions WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ?
),
undegraded AS (
    SELECT image_id, prediction AS reference FROM own WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT image_id, degradation, level, avg((prediction = label)::DOUBLE) AS hit,
    CASE WHEN degradation <> 'none' THEN avg((prediction <> reference)::DOUBLE) END AS changed
FROM own LEFT JOIN undegraded USING (image_id)
GROUP BY image_id, degradation, level
ORDER BY image_id, degradation, level;
