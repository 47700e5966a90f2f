-- Shares per image and condition of the attached database; trials are nested in images. A probability of 0 counts as the
-- smallest float32, as in `measures.nll`.
INSERT INTO loaded BY NAME
WITH entered AS NOT MATERIALIZED (
    SELECT entrant, degradation, level, trial, image_id, label, prediction, true_rank, true_probability
    FROM source.predictions JOIN entrant_map USING (run_id, dataset, model, defense)
),
undegraded AS (
    SELECT entrant, image_id, prediction AS reference
    FROM entered WHERE degradation = 'none' AND level = 0 AND trial = 0
)
SELECT $file AS file, entrant, degradation, level, image_id, max(label) AS label, count(*) AS trials,
    avg((prediction = label)::DOUBLE) AS hit,
    CASE WHEN degradation <> 'none' THEN avg((prediction <> reference)::DOUBLE) END AS changed,
    avg((true_rank <= 5)::DOUBLE) AS top5,
    avg(-ln(greatest(true_probability::DOUBLE, 1.1754943508222875e-38))) AS nll
FROM entered LEFT JOIN undegraded USING (entrant, image_id)
GROUP BY entrant, degradation, level, image_id
