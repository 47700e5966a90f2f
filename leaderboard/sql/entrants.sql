SELECT p.run_id, runs.protocol, p.dataset, p.model, p.defense, p.architecture, p.predictions,
    m.weights_sha256, m.num_parameters, m.input_size
FROM (
    SELECT run_id, dataset, model, defense, max(architecture) AS architecture, count(*) AS predictions
    FROM source.predictions GROUP BY ALL
) AS p
JOIN source.runs AS runs USING (run_id)
LEFT JOIN source.models AS m USING (dataset, model, defense)
ORDER BY ALL
