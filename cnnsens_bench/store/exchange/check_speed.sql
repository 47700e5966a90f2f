SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN images < 0 THEN 'column images: it must be 0 or more'
        WHEN seconds < 0 THEN 'column seconds: it must be 0 or more'
        WHEN threads < 0 THEN 'column threads: it must be 0 or more'
    END AS wrong
    FROM in_speed
)
WHERE wrong IS NOT NULL
