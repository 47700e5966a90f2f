SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM query_table($table) ANTI JOIN in_models USING (dataset, model, defense) LIMIT 1
