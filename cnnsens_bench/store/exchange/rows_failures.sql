COPY (
    SELECT <columns>
    FROM (
        SELECT f.* REPLACE (
            -- The image's own path may hold what ends a path in a sentence.
            public_error(CASE WHEN uri IS NULL THEN error ELSE replace(error, uri, '<folder>/' || parse_filename(uri)) END) AS error
        )
        FROM source.failures AS f
        LEFT JOIN source.images AS i USING (dataset, image_id)
        SEMI JOIN chosen USING (run_id, dataset)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd)
