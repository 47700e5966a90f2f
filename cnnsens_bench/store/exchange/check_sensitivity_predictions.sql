SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN deviation < 0 THEN 'column deviation: it must be 0 or more'
        WHEN passes < 0 THEN 'column passes: it must be 0 or more'
        WHEN NOT abs(level) <= 1e12 THEN 'column level: it must be finite'
    END AS wrong
    FROM in_sensitivity_predictions
)
WHERE wrong IS NOT NULL
