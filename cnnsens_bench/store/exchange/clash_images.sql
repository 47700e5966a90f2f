SELECT image_id || ' of ' || dataset FROM in_images AS i JOIN images AS m USING (dataset, image_id) WHERE i.label <> m.label LIMIT 1
