SELECT run_id, dataset, stage, count(DISTINCT image_id) AS images FROM source.failures WHERE image_id <> '' GROUP BY ALL ORDER BY ALL
