-- name: conditions
SELECT degradation, level, trials FROM condition_index WHERE board = $board ORDER BY condition

-- name: images
SELECT image, image_id,
    (SELECT max(class_name) FROM class_names AS c WHERE dataset = $dataset AND c.image_id = i.image_id) AS class_name
FROM image_index AS i WHERE board = $board ORDER BY image

-- name: trials
-- For each condition, the smallest and the largest number of trials among the entrants. The number of an entrant is the
-- largest of its images', because a failure may leave an image with fewer.
SELECT condition, min(trials) AS least, max(trials) AS most
FROM (
    SELECT entrant, condition, max(trials) AS trials
    FROM per_image JOIN entrant_board USING (entrant) WHERE board = $board GROUP BY ALL
)
GROUP BY condition

-- name: planned_trials
-- What `trials` gives, by the largest trial of any image: a budget leaves no image all trials.
SELECT condition, min(planned) AS least, max(planned) AS most
FROM (SELECT entrant, degradation, level, max(trials) AS planned FROM evaluated GROUP BY ALL)
JOIN entrant_board USING (entrant) JOIN condition_index USING (board, degradation, level)
WHERE board = $board GROUP BY ALL

-- name: evaluated_shares
-- For each entrant of a board, the share of its degraded cells that was evaluated, and the share that is compared. What
-- several databases have counts once in the second.
WITH planned AS (
    SELECT entrant, degradation, level, max(trials) AS trials, sum(cells) AS cells FROM evaluated GROUP BY ALL
),
evaluated_cells AS (
    SELECT entrant, sum(cells) FILTER (degradation <> 'none') AS cells,
        max(cells) FILTER (degradation = 'none') * sum(trials) FILTER (degradation <> 'none') AS every
    FROM planned GROUP BY ALL
),
compared_cells AS (
    SELECT entrant, sum(p.trials) AS cells, count(DISTINCT image) AS images
    FROM per_image AS p JOIN condition_index USING (condition) JOIN entrant_board USING (board, entrant)
    WHERE degradation <> 'none' GROUP BY ALL
)
SELECT entrant, least(1, e.cells / e.every) AS share, least(1, c.cells / e.every) AS compared
FROM entrant_board JOIN evaluated_cells AS e USING (entrant) LEFT JOIN compared_cells AS c USING (entrant)
WHERE board = $board AND e.every > 0 ORDER BY entrant

-- name: measured
-- For each entrant of a board, the conditions that it was measured under, and the number of images with a prediction.
SELECT entrant, list(DISTINCT condition ORDER BY condition) AS conditions,
    count(DISTINCT image) FILTER (hit IS NOT NULL) AS images
FROM per_image JOIN entrant_board USING (entrant) WHERE board = $board GROUP BY entrant ORDER BY entrant

-- name: shares
-- One row for each image and condition of an entrant.
SELECT condition, image, label, trials, hit, changed, top5, nll FROM per_image WHERE entrant = $entrant

-- name: ece
SELECT entrant, condition, sum(abs(gap)) / sum(rows) AS ece
FROM (SELECT entrant, degradation, level, bin, sum(gap) AS gap, sum(rows) AS rows FROM calibration GROUP BY ALL)
JOIN entrant_board USING (entrant)
JOIN condition_index USING (board, degradation, level)
WHERE board = $board
GROUP BY ALL

-- name: selection
-- What several databases have a part of each has no area, because that needs all predictions at once.
SELECT entrant, condition, aurc, accuracy_at_90
FROM selection JOIN entrant_board USING (entrant)
WHERE board = $board
QUALIFY count(*) OVER (PARTITION BY entrant, condition) = 1
ORDER BY entrant, condition

-- name: labels
-- The number of classes among the labels of a board's undegraded images, or of all where it has no undegraded ones.
SELECT coalesce(
    nullif(count(DISTINCT label) FILTER (degradation = 'none'), 0), count(DISTINCT label)
) AS labels
FROM per_image JOIN entrant_board USING (entrant) JOIN condition_index USING (board, condition)
WHERE board = $board

-- name: timings
-- One row for each timed batch of images. DISTINCT, because a batch that two databases have is one measurement.
SELECT DISTINCT entrant, device, threads, run_id, images, seconds
FROM timings JOIN entrant_board USING (entrant) WHERE board = $board ORDER BY ALL

-- name: create_paired
-- Predictions of two entrants, which only a comparison needs.
CREATE OR REPLACE TEMP TABLE paired (
    entrant INTEGER, degradation VARCHAR, level DOUBLE, trial INTEGER, image_id VARCHAR, prediction INTEGER
)

-- name: agreement
-- For each condition and image: the share of trials in which two entrants predict the same label, and these trials. What
-- several databases have of the same trial counts once.
WITH once AS (
    SELECT entrant, degradation, level, trial, image_id, min(prediction) AS prediction FROM paired GROUP BY ALL
)
SELECT degradation, level, image_id, avg((a.prediction = b.prediction)::DOUBLE) AS same, count(*) AS trials
FROM once AS a JOIN once AS b USING (degradation, level, trial, image_id)
WHERE a.entrant = $first AND b.entrant = $second
GROUP BY ALL
ORDER BY ALL

-- name: pairs
-- The shares of two entrants on the same image, under the same condition and with the same number of trials.
SELECT condition, image, a.hit AS hit, b.hit AS reference_hit, a.changed AS changed, b.changed AS reference_changed, a.trials
FROM per_image AS a JOIN per_image AS b USING (condition, image, trials)
WHERE a.entrant = $first AND b.entrant = $second
ORDER BY condition, image
