SELECT image_id || ' of ' || dataset FROM in_images ANTI JOIN seen USING (dataset, image_id) LIMIT 1
