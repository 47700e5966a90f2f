-- Of the defenses under which this model has predictions.
SELECT defense, weights_sha256
FROM models
WHERE model = $model AND dataset = $dataset
    AND defense IN (SELECT DISTINCT defense FROM predictions WHERE predictions.model = $model AND predictions.dataset = $dataset);
