SELECT protocol, dataset, model, defense, coalesce(max(e.architecture), '') AS architecture,
    coalesce(max(m.weights_sha256), '') AS weights_sha256, sum(predictions)::BIGINT AS predictions
FROM entered AS e JOIN in_runs USING (run_id) LEFT JOIN in_models AS m USING (dataset, model, defense)
GROUP BY ALL ORDER BY protocol, dataset, model, defense
