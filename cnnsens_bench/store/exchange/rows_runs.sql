COPY (
    SELECT <columns>
    FROM (
        SELECT * REPLACE (public_json(config::VARCHAR)::JSON AS config, public_json(environment::VARCHAR)::JSON AS environment)
        FROM source.runs SEMI JOIN chosen USING (run_id)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd)
