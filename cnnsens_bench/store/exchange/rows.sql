-- The columns of this version's schema in its order; what an older database lacks is NULL.
COPY (
    SELECT <columns>
    FROM (
        FROM (FROM main.<table> LIMIT 0)
        UNION ALL BY NAME
        SELECT <stored> FROM source.<table>
        SEMI JOIN (FROM chosen) AS wanted USING (<key>)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd)
