-- Less what the same protocol holds already, and each once.
INSERT INTO sensitivity_predictions BY NAME
SELECT DISTINCT ON (protocol, dataset, image_id, model, defense, predictor, degradation, level, output) incoming.*
FROM read_parquet($files) AS incoming JOIN runs USING (run_id)
ANTI JOIN (
    SELECT runs.protocol, s.dataset, s.image_id, s.model, s.defense, s.predictor, s.degradation, s.level, s.output
    FROM sensitivity_predictions AS s JOIN runs USING (run_id)
    SEMI JOIN (SELECT DISTINCT dataset, image_id FROM read_parquet($files)) AS touched USING (dataset, image_id)
) AS stored USING (protocol, dataset, image_id, model, defense, predictor, degradation, level, output);
