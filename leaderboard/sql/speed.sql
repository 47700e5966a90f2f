-- A row a chunk; DISTINCT, for what two databases both have is one measurement.
SELECT DISTINCT entrant, device, threads, run_id, images, seconds FROM timings ORDER BY ALL
