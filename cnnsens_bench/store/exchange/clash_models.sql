-- The table has one row for a network's name and defense on a data set, whatever the protocol.
SELECT model || ' with defense ' || defense || ' on ' || dataset
FROM in_models AS i JOIN models AS m USING (dataset, model, defense)
WHERE i.weights_sha256 IS DISTINCT FROM m.weights_sha256 LIMIT 1
