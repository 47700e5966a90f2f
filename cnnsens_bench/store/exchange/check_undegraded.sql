SELECT image_id || ' of ' || dataset || ' and ' || model || ' with defense ' || defense
FROM in_predictions JOIN in_runs USING (run_id)
GROUP BY protocol, dataset, image_id, model, defense
HAVING NOT bool_or(degradation = 'none') LIMIT 1
