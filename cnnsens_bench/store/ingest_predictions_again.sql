-- As ingest_predictions.sql, each row once and less what the same protocol holds already. Only stored rows of the images
-- that come are compared, so that a large table costs a scan of two columns and not a hash table of itself.
INSERT INTO predictions BY NAME
WITH touched AS MATERIALIZED (
    SELECT DISTINCT runs.run_id, runs.protocol, incoming.dataset, incoming.image_id
    FROM (SELECT DISTINCT run_id, dataset, image_id FROM read_parquet($files)) AS incoming
    JOIN runs USING (run_id)
),
stored AS (
    SELECT touched.run_id, p.dataset, p.image_id, p.model, p.defense, p.degradation, p.level, p.trial
    FROM predictions AS p
    JOIN runs USING (run_id)
    JOIN touched ON touched.protocol = runs.protocol AND touched.dataset = p.dataset AND touched.image_id = p.image_id
)
SELECT DISTINCT ON (run_id, dataset, image_id, model, defense, degradation, level, trial) *
FROM read_parquet($files)
ANTI JOIN stored USING (run_id, dataset, image_id, model, defense, degradation, level, trial);
