INSERT INTO names SELECT dataset, image_id, class_name FROM source.images
