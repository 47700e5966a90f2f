-- name: names_in_source
-- The names that an export can select, in the database that is attached as `source`.
SELECT list(DISTINCT dataset) AS dataset, list(DISTINCT model) AS model, list(DISTINCT protocol) AS protocol
FROM source.predictions JOIN source.runs USING (run_id);

-- name: select_entrants
-- The table `selected` says whose predictions are exported. An empty list selects every name.
CREATE TEMP TABLE selected AS
SELECT run_id, dataset, model, defense
FROM source.predictions JOIN source.runs USING (run_id)
WHERE (len($datasets::VARCHAR[]) = 0 OR list_contains($datasets::VARCHAR[], dataset))
    AND (len($models::VARCHAR[]) = 0 OR list_contains($models::VARCHAR[], model))
    AND (len($protocols::VARCHAR[]) = 0 OR list_contains($protocols::VARCHAR[], protocol))
GROUP BY ALL;

-- name: export_runs
COPY (
    SELECT <columns>
    FROM (
        SELECT * REPLACE (
            public_json(config::VARCHAR)::JSON AS config, public_json(environment::VARCHAR)::JSON AS environment
        )
        FROM source.runs SEMI JOIN selected USING (run_id)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd);

-- name: export_images
COPY (
    SELECT <columns>
    FROM (
        SELECT * REPLACE ('<folder>/' || parse_filename(uri) AS uri)
        FROM source.images
        SEMI JOIN (
            SELECT dataset, image_id FROM source.predictions SEMI JOIN selected USING (run_id, dataset, model, defense)
        ) AS predicted USING (dataset, image_id)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd);

-- name: export_failures
-- The path of the image is replaced first: it may contain characters that end a path within a sentence.
COPY (
    SELECT <columns>
    FROM (
        SELECT f.* REPLACE (
            public_error(
                CASE WHEN uri IS NULL THEN error ELSE replace(error, uri, '<folder>/' || parse_filename(uri)) END
            ) AS error
        )
        FROM source.failures AS f
        LEFT JOIN source.images AS i USING (dataset, image_id)
        SEMI JOIN selected USING (run_id, dataset)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd);

-- name: export_rows
-- The columns are those of this version's schema, in its order. A column that an older database lacks is NULL.
COPY (
    SELECT <columns>
    FROM (
        FROM (FROM main.<table> LIMIT 0)
        UNION ALL BY NAME
        SELECT <stored> FROM source.<table>
        SEMI JOIN (FROM selected) AS entrants USING (<key>)
    )
) TO $file (FORMAT parquet, COMPRESSION zstd);

-- name: conflicting_run
SELECT run_id || ' has protocol ' || r.protocol || ' there and ' || i.protocol || ' here'
FROM in_runs AS i JOIN runs AS r USING (run_id) WHERE i.protocol <> r.protocol LIMIT 1;

-- name: conflicting_model
-- The table `models` has one row for a network's name and defense on a data set, whatever the protocol.
SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM in_models AS i JOIN models AS m USING (dataset, model, defense)
WHERE i.weights_sha256 IS DISTINCT FROM m.weights_sha256 LIMIT 1;

-- name: conflicting_image
SELECT image_id || ' of ' || dataset
FROM in_images AS i JOIN images AS m USING (dataset, image_id) WHERE i.label <> m.label LIMIT 1;

-- name: import_runs
-- A run that has gone on since it was last imported gets its later status.
INSERT INTO runs BY NAME
SELECT <columns> FROM in_runs
ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at
WHERE excluded.finished_at > coalesce(finished_at, '-infinity'::TIMESTAMPTZ);

-- name: import_models
INSERT INTO models BY NAME SELECT <columns> FROM in_models ON CONFLICT DO NOTHING;

-- name: import_images
INSERT INTO images BY NAME SELECT <columns> FROM in_images ON CONFLICT DO NOTHING;

-- name: import_rows
-- Inserts the rows whose key the database does not have. The key includes the protocol where a row is about one image
-- of one network, and the run elsewhere.
INSERT INTO <table> BY NAME
SELECT <columns>
FROM (SELECT i.*, protocol FROM in_<table> AS i LEFT JOIN runs USING (run_id)) AS incoming
ANTI JOIN (
    SELECT <key> FROM (SELECT s.*, protocol FROM <table> AS s LEFT JOIN runs USING (run_id))
) AS stored USING (<key>);
