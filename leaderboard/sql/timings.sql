INSERT INTO timings
SELECT entrant, run_id, device, threads, images, seconds
FROM source.speed JOIN entrant_map USING (run_id, dataset, model, defense)
WHERE images > 0
