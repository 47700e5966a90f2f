SELECT file_row_number, config::VARCHAR, environment::VARCHAR FROM in_runs ORDER BY file_row_number LIMIT $most
