SELECT weights_sha256
FROM models
WHERE model = $model AND dataset = $dataset
    AND EXISTS (FROM predictions WHERE predictions.model = $model AND predictions.dataset = $dataset)
LIMIT 1;
