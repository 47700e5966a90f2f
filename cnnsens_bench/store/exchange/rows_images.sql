COPY (
    SELECT <columns>
    FROM (
        SELECT * REPLACE ('<folder>/' || parse_filename(uri) AS uri)
        FROM source.images
        SEMI JOIN (
            SELECT dataset, image_id FROM source.predictions SEMI JOIN chosen USING (run_id, dataset, model, defense)
        ) AS wanted USING (dataset, image_id)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd)
