SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN label < 0 THEN 'column label: it must be 0 or more'
        WHEN width < 1 OR height < 1 THEN 'columns width, height: they must be 1 or more'
        WHEN NOT regexp_full_match(uri, '<folder>/[^/]*') THEN 'column uri: it must be <folder>/name'
    END AS wrong
    FROM in_images
)
WHERE wrong IS NOT NULL
