-- Whose predictions are exported; an empty list asks for all.
CREATE TEMP TABLE chosen AS
SELECT run_id, dataset, model, defense
FROM source.predictions JOIN source.runs USING (run_id)
WHERE (len($datasets::VARCHAR[]) = 0 OR list_contains($datasets::VARCHAR[], dataset))
    AND (len($models::VARCHAR[]) = 0 OR list_contains($models::VARCHAR[], model))
    AND (len($protocols::VARCHAR[]) = 0 OR list_contains($protocols::VARCHAR[], protocol))
GROUP BY ALL
