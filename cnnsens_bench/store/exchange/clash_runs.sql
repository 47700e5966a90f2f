SELECT run_id || ' has protocol ' || r.protocol || ' there and ' || i.protocol || ' here'
FROM in_runs AS i JOIN runs AS r USING (run_id) WHERE i.protocol <> r.protocol LIMIT 1
