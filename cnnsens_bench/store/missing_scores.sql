-- Give the product of images and wanted scores that the store has not, under one protocol. The level-free score has the
-- predictor '', the degradation 'none' and level 0.
SELECT image_id, model, defense, predictor, degradation, level
FROM wanted_images CROSS JOIN wanted
ANTI JOIN (
    SELECT image_id, model, defense, '' AS predictor, 'none' AS degradation, 0 AS level
    FROM sensitivity JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
    UNION ALL
    SELECT image_id, model, defense, predictor, degradation, level
    FROM sensitivity_predictions JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
) USING (image_id, model, defense, predictor, degradation, level);
