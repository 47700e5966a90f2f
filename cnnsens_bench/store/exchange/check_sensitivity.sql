-- The views take square roots.
SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN grad_sq_norm < 0 THEN 'column grad_sq_norm: it must be 0 or more'
        WHEN pepper_sq_norm < 0 THEN 'column pepper_sq_norm: it must be 0 or more'
        WHEN margin_grad_sq_norm < 0 THEN 'column margin_grad_sq_norm: it must be 0 or more'
    END AS wrong
    FROM in_sensitivity
)
WHERE wrong IS NOT NULL
