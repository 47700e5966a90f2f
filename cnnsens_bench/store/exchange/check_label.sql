SELECT image_id || ' of ' || dataset
FROM seen JOIN in_images AS i USING (dataset, image_id)
WHERE lowest <> highest OR i.label <> lowest LIMIT 1
