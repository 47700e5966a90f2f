SELECT image_id || ' of ' || dataset FROM query_table($table) ANTI JOIN in_images USING (dataset, image_id) LIMIT 1
