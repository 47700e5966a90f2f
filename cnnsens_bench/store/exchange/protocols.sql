SELECT protocol, dataset, count(DISTINCT image_id) AS test_images, count(DISTINCT (degradation, level)) AS conditions
FROM in_predictions JOIN in_runs USING (run_id)
GROUP BY ALL ORDER BY protocol, dataset
