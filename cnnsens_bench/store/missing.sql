-- Give the product of images and wanted cells that the store has no predictions of, under one protocol.
SELECT image_id, model, defense, degradation, level, trial
FROM wanted_images CROSS JOIN wanted
ANTI JOIN (
    SELECT image_id, model, defense, degradation, level, trial
    FROM protocol_predictions
    WHERE protocol = $protocol AND dataset = $dataset AND image_id IN (SELECT image_id FROM wanted_images)
) USING (image_id, model, defense, degradation, level, trial);
