-- What the product of images and wanted conditions has and the store, under one protocol, has not.
SELECT image_id, model, defense, degradation, level, trial
FROM wanted_images CROSS JOIN wanted
ANTI JOIN (
    SELECT image_id, model, defense, degradation, level, trial
    FROM protocol_predictions
    WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images)
    UNION ALL
    -- Scores are cells of their own, named as engine/plan.py names them.
    SELECT image_id, model, defense, 'sensitivity', 0, 0
    FROM sensitivity JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
    UNION ALL
    SELECT image_id, model, defense, predictor || ' of ' || degradation, level, 0
    FROM sensitivity_predictions JOIN runs USING (run_id)
    WHERE protocol = $protocol AND dataset = $dataset AND output = 'margin'
        AND image_id IN (SELECT image_id FROM wanted_images)
) USING (image_id, model, defense, degradation, level, trial);
