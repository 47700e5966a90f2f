SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM in_models ANTI JOIN entered USING (dataset, model, defense) LIMIT 1
