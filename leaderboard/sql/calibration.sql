-- The bins of the expected calibration error (Guo et al. 2017), each open below.
INSERT INTO calibration
SELECT entrant, degradation, level,
    least(greatest(ceil(confidence::DOUBLE * 15)::INTEGER - 1, 0), 14) AS bin,
    sum((prediction = label)::DOUBLE - confidence::DOUBLE) AS gap, count(*) AS rows
FROM source.predictions AS p
JOIN entrant_map USING (run_id, dataset, model, defense)
ANTI JOIN (FROM superseded WHERE file = $file) AS s USING (entrant, degradation, level, image_id)
WHERE confidence IS NOT NULL AND prediction IS NOT NULL
GROUP BY ALL
