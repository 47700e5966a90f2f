SELECT image, image_id, (SELECT max(class_name) FROM names WHERE dataset = $dataset AND names.image_id = i.image_id) AS class_name
FROM image_index AS i WHERE board = $board ORDER BY image
