SELECT list(DISTINCT dataset) AS dataset, list(DISTINCT model) AS model, list(DISTINCT protocol) AS protocol
FROM source.predictions JOIN source.runs USING (run_id)
