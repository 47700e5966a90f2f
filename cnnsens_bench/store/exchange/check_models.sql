SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN coalesce(weights_sha256, '') = '' THEN 'column weights_sha256: whose predictions these are must be known'
        WHEN num_parameters < 0 THEN 'column num_parameters: it must be 0 or more'
        WHEN NOT input_size BETWEEN 1 AND 65536 THEN 'column input_size: it must be from 1 to 65536'
    END AS wrong
    FROM in_models
)
WHERE wrong IS NOT NULL
