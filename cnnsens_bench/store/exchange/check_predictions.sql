-- The first row that no run writes, and what is wrong with it.
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN label IS NULL OR label < 0 THEN 'column label: it must be 0 or more'
        WHEN prediction IS NULL OR prediction < 0 THEN 'column prediction: it must be 0 or more'
        WHEN confidence IS NULL OR NOT confidence BETWEEN 0 AND 1 THEN 'column confidence: it must be from 0 to 1'
        WHEN true_probability IS NULL OR NOT true_probability BETWEEN 0 AND 1
            THEN 'column true_probability: it must be from 0 to 1'
        WHEN NOT reference_probability BETWEEN 0 AND 1 THEN 'column reference_probability: it must be from 0 to 1'
        WHEN NOT isfinite(reference_logit) THEN 'column reference_logit: it must be finite'
        WHEN true_rank IS NULL OR true_rank < 1 THEN 'column true_rank: it must be 1 or more'
        WHEN trial < 0 THEN 'column trial: it must be 0 or more'
        WHEN NOT abs(level) <= 1e12 THEN 'column level: it must be finite'
        WHEN degradation = 'none' AND (level <> 0 OR trial <> 0)
            THEN 'column degradation: the undegraded image has level 0 and trial 0'
    END AS wrong
    FROM in_predictions
)
WHERE wrong IS NOT NULL
